"""The same pictures give the same features, however they are held, ordered, grouped or read.

Tolerance: 1e-5 relative, 1e-6 absolute in float32, since batches of other sizes round differently;
exact where nothing but the container differs. `pytest -m slow` runs many more examples.
"""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.exceptions import FeatxError
from sklearn_featx.images import decode

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MANY = settings(FEW, max_examples=1500, derandomize=False)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def png(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def saved(pixels, folder, ending):
    folder.mkdir(exist_ok=True)
    paths = []
    for i, image in enumerate(pixels):
        paths.append(str(folder / f"{i}.{ending}"))
        Image.fromarray(image).save(paths[-1])
    return paths


def channels_first(pixels):
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)


def with_alpha(pixels):
    rgb = pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=3)
    return np.concatenate([rgb, np.full((*rgb.shape[:3], 1), 255, np.uint8)], axis=3)


# From uint8 (n, H, W) or (n, H, W, 3) to whatever holds the same pictures.
CONTAINERS = {
    "array": lambda p, _: p,
    "fortran order": lambda p, _: np.asfortranarray(p),
    "reversed view": lambda p, _: p[::-1].copy()[::-1],
    "channels first": lambda p, _: np.ascontiguousarray(channels_first(p)),
    "float64": lambda p, _: p / 255,
    "float32": lambda p, _: (p / 255).astype(np.float32),
    "uint16": lambda p, _: p.astype(np.uint16) * 257,
    "int64": lambda p, _: p.astype(np.int64),
    "big endian": lambda p, _: (p.astype(np.uint16) * 257).astype(">u2"),
    "tensor": lambda p, _: torch.from_numpy(channels_first(p).copy()),
    "float tensor": lambda p, _: torch.from_numpy(channels_first(p).copy()).float() / 255,
    "list of arrays": lambda p, _: list(p),
    "tuple of tensors": lambda p, _: tuple(torch.from_numpy(q) for q in channels_first(p).copy()),
    "nested lists": lambda p, _: p.tolist(),
    "pictures": lambda p, _: [Image.fromarray(q) for q in p],
    "transparent pictures": lambda p, _: [Image.fromarray(q) for q in with_alpha(p)],
    "bytes": lambda p, _: [png(q) for q in p],
    "paths": lambda p, folder: saved(p, folder, "png"),
    "bmp files": lambda p, folder: saved(p, folder, "bmp"),
    "series of paths": lambda p, folder: pd.Series(saved(p, folder, "png")),
    "frame of paths": lambda p, folder: pd.DataFrame({"file": saved(p, folder, "png")}),
    "array of paths": lambda p, folder: np.array(saved(p, folder, "tif")),
    "mixed": lambda p, folder: [
        [saved(p, folder, "png")[i], png(q), Image.fromarray(q), q][i % 4] for i, q in enumerate(p)
    ],
}


@st.composite
def pictures(draw, most=4):
    """Gray or RGB pictures of one size, from noise to one level."""
    count, height, width = (
        draw(st.integers(1, most)),
        draw(st.integers(5, 24)),
        draw(st.integers(5, 24)),
    )
    shape = (count, height, width, 3) if draw(st.booleans()) else (count, height, width)
    return draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 255)))


@pytest.fixture(scope="module")
def extractor(small_net_factory):
    return PretrainedFeatureExtractor(
        small_net_factory(), image_size=16, cache=False, n_jobs=1, batch_size=4
    )


def check_containers(extractor, folder, pixels, name):
    wanted = extractor.transform(pixels)
    held = CONTAINERS[name](pixels, folder)
    np.testing.assert_array_equal(extractor.transform(held), wanted)


def check_grouping(extractor, pixels, data):
    """Order, subset, duplicates, batch size and threads do not matter."""
    wanted = extractor.transform(pixels)
    rows = data.draw(st.lists(st.integers(0, len(pixels) - 1), min_size=1, max_size=9))
    batch_size, n_jobs = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([None, 1, 2, 3]))
    other = PretrainedFeatureExtractor(
        extractor.backbone,
        image_size=16,
        cache=data.draw(st.sampled_from([False, True])),
        batch_size=batch_size,
        n_jobs=n_jobs,
    )
    np.testing.assert_allclose(other.transform(pixels[rows]), wanted[rows], **CLOSE)


def encoded(file_format, **options):
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, format=file_format, **options)
    return file.getvalue()


FORMATS = {
    "JPEG": encoded("JPEG"),
    "progressive JPEG": encoded("JPEG", progressive=True),
    "PNG": encoded("PNG"),
    "GIF": encoded("GIF"),
    "TIFF": encoded("TIFF"),
    "LZW TIFF": encoded("TIFF", compression="tiff_lzw"),
    "BMP": encoded("BMP"),
    "WEBP": encoded("WEBP"),
    "ICO": encoded("ICO"),
    "PCX": encoded("PCX"),
    "TGA": encoded("TGA"),
    "PPM": encoded("PPM"),
    "JPEG 2000": encoded("JPEG2000"),
    "DDS": encoded("DDS"),
    "SGI": encoded("SGI"),
}


@st.composite
def damaged_files(draw):
    """A valid file with bytes changed, cut out, put in, or cut off."""
    data = bytearray(FORMATS[draw(st.sampled_from(sorted(FORMATS)))])
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(["change", "header", "remove", "insert", "cut"]))
        if what == "change":
            data[at] = draw(st.integers(0, 255))
        elif what == "header":
            data[at % min(64, len(data))] = draw(st.sampled_from([0, 1, 127, 128, 255]))
        elif what == "remove":
            del data[at : at + draw(st.integers(1, 16))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            del data[at:]
    return bytes(data)


def check_decoder(data):
    """A picture, or an error of this package: nothing else, whatever the bytes are."""
    try:
        pixels = decode(data)
    except FeatxError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)


# Some of the examples have hardly any contrast.
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.RangeWarning")
class TestContainers:
    @pytest.mark.parametrize("name", CONTAINERS)
    @settings(FEW, max_examples=6)
    @given(pixels=pictures())
    def test_any_container_gives_the_same_features(self, name, extractor, tmp_path, pixels):
        check_containers(extractor, tmp_path / "files", pixels, name)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", CONTAINERS)
    @settings(MANY, max_examples=200)
    @given(pixels=pictures())
    def test_in_many_examples(self, name, extractor, tmp_path, pixels):
        check_containers(extractor, tmp_path / "files", pixels, name)


class TestGrouping:
    @FEW
    @given(pixels=pictures(most=6), data=st.data())
    def test_order_subset_duplicates_batches_and_threads(self, extractor, pixels, data):
        check_grouping(extractor, pixels, data)

    @pytest.mark.slow
    @MANY
    @given(pixels=pictures(most=6), data=st.data())
    def test_in_many_examples(self, extractor, pixels, data):
        check_grouping(extractor, pixels, data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
class TestDecoder:
    @settings(FEW, max_examples=300)
    @given(data=damaged_files())
    def test_300_damaged_files_end_in_a_picture_or_our_error(self, data):
        check_decoder(data)

    @settings(FEW, max_examples=50)
    @given(data=st.binary(max_size=200))
    def test_50_random_bytes_end_in_our_error(self, data):
        check_decoder(data)

    @pytest.mark.slow
    @settings(MANY, max_examples=20_000)
    @given(data=damaged_files())
    def test_20000_damaged_files_end_in_a_picture_or_our_error(self, data):
        check_decoder(data)
