"""Images of many channels in public issues of other libraries, each with the right result here."""

import io

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import nn

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import ReadOptions, as_image_collection

RNG = np.random.default_rng(0)


class Net(nn.Module):
    """A network for pictures, or for images of other channels."""

    def __init__(self, n_channels=3, shuffle=1):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.shuffle = nn.PixelUnshuffle(shuffle)
            self.stem = nn.Conv2d(n_channels * shuffle**2, 4, 3)

    def forward(self, x):
        return self.stem(self.shuffle(x)).relu().mean((2, 3))


def rows(X, channels="rgb", net=None, **options):
    reader = ImageReader(channels=channels, **options)
    return PretrainedFeatureExtractor(net or Net(), reader=reader, cache=False).fit_transform(X)


def written(array, **options):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def assert_each(X, array, **options):
    """The columns are those of the channels of one array (C, h, w)."""
    alone = [rows(channel[np.newaxis], **options) for channel in array]
    np.testing.assert_array_equal(rows(X, "each", **options), np.hstack(alone))


def test_transformers_21981():
    # "Unable to infer channel dimension format": (6, 512, 512), channels first.
    X = RNG.random((1, 6, 20, 20))
    assert_each(X, X[0])
    np.testing.assert_array_equal(rows(X, [5, 0, 2]), rows(X[:, [5, 0, 2]]))
    with pytest.raises(InputError, match="channels='each'"):
        rows(X)


@pytest.mark.parametrize("channels", ["rgb", [0], "each"])
def test_transformers_31364(channels):
    # A picture of 1 x 1000 pixels was read as a gray one.
    X = RNG.integers(0, 256, (1, 30, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"image_shape=\(1, 30\)"):
        as_image_collection([X], ReadOptions(channels=channels))
    shown = as_image_collection([X], ReadOptions(channels=[2, 1, 0], image_shape=(1, 30)))
    np.testing.assert_array_equal(shown.load(0), X[..., ::-1])


def test_dali_4912():
    # OpenCV reads TIFF of at most four channels.
    array = RNG.integers(0, 65536, (5, 20, 24)).astype(np.uint16)
    assert_each([written(array, photometric="minisblack", planarconfig="separate")], array)


def test_torchvision_514():
    # A stack of 50 gray pages was converted to RGB.
    array = RNG.integers(0, 256, (50, 8, 8)).astype(np.uint8)
    data = written(array, photometric="minisblack")
    chosen = as_image_collection([data], ReadOptions(channels=[49, 0, 7])).load(0)
    np.testing.assert_array_equal(chosen, np.moveaxis(array[[49, 0, 7]], 0, 2))


def test_histoprep_11():
    # Of 30 channels, the first three were taken without a word.
    array = RNG.integers(0, 256, (30, 8, 10)).astype(np.uint8)
    data = written(array, ome=True, metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match=r"30 channels.*channels='each'"):
        as_image_collection([data]).load(0)
    assert_each([data], array)


def test_deepflash2_12():
    # ImageJ's (z, c, y, x) = (1, 4, h, w) became its first channel.
    array = RNG.integers(0, 65536, (1, 4, 20, 24)).astype(np.uint16)
    assert_each([written(array, imagej=True, metadata={"axes": "ZCYX"})], array[0])


def test_pillow_2485(tmp_path):
    # A TIFF of several pages of RGB as float64, which Pillow cannot open.
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "pages.tif"
    pages = RNG.uniform(0, 255, (2, 3, 10, 10))
    tifffile.imwrite(path, pages, photometric="rgb", planarconfig="separate")
    with pytest.raises(UnidentifiedImageError):
        Image.open(path).load()
    page = pages[0]
    options = {"frames": 0, "value_range": (0, 255)}
    found = as_image_collection([path], ReadOptions(channels=[2], **options)).load(0)
    by_hand = as_image_collection([page[2]], ReadOptions(value_range=(0, 255))).load(0)
    np.testing.assert_array_equal(found, by_hand)


def test_pillow_3160():
    # Ten channels were truncated to three when they were resized.
    X = RNG.integers(0, 256, (1, 10, 40, 30)).astype(np.uint8)
    net = Net(10).eval()
    found = PretrainedFeatureExtractor(net, image_size=16, cache=False).fit_transform(X)
    planes = [Image.fromarray(plane).resize((16, 16), Image.Resampling.BILINEAR) for plane in X[0]]
    stacked = torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])[np.newaxis])
    with torch.no_grad():
        np.testing.assert_allclose(found, net(stacked / 255).numpy(), atol=1e-5)


def test_tf_unet_198():
    # Red, green, blue and near infrared.
    array = RNG.integers(0, 256, (20, 24, 4)).astype(np.uint8)
    data = written(array, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(rows([data], [3, 0, 1]), rows(array[np.newaxis][..., [3, 0, 1]]))
    # Its color, where nothing is said: the file declares it.
    np.testing.assert_array_equal(rows([data]), rows(array[np.newaxis][..., :3]))
    first = np.moveaxis(array, 2, 0)[np.newaxis]
    np.testing.assert_array_equal(
        rows([data], net=Net(4)), rows(first, net=Net(4), image_shape=(20, 24))
    )


@pytest.mark.filterwarnings("ignore:backbone. the weights of this SqueezeNet")
def test_segmentation_models_54():
    # The first layer of a network of torchvision is replaced by one of eight channels.
    net = torchvision.models.squeezenet1_1(weights=None)
    net.features[0] = nn.Conv2d(8, 64, kernel_size=3, stride=2)
    extractor = PretrainedFeatureExtractor(net, image_size=32, cache=False)
    X = RNG.random((2, 8, 32, 32)).astype(np.float32)
    assert extractor.fit_transform(X).shape == (2, 512)
    with pytest.raises(InputError, match="no axis of 8 channels, which the network reads"):
        extractor.fit_transform(X[:, :3])


@pytest.mark.parametrize("n_channels", [3, 5, 13])
def test_timm_2445(n_channels):
    # The channels of the first convolution are not those of the image: pixels become channels.
    X = RNG.normal(size=(2, n_channels, 16, 16)).astype(np.float32).clip(0, 1)
    net = Net(n_channels, shuffle=2).eval()
    with torch.no_grad():
        wanted = net(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(rows(X, net=net), wanted, atol=1e-5)


def test_torchgeo_2289():
    # Two images of two bands each, stacked: no pair of them is gray with alpha.
    X = RNG.integers(0, 256, (2, 4, 16, 16)).astype(np.uint8)
    net = Net(4).eval()
    with torch.no_grad():
        wanted = net(torch.from_numpy(X) / 255).numpy()
    np.testing.assert_allclose(rows(X, net=net), wanted, atol=1e-5)
