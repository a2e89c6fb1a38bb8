"""The table of everything that a row depends on, and of what it does not depend on.

Each entry is a generator that yields an extractor and its X, changes one thing, and yields both
again. `NEW`: every row is computed, and equal to what an extractor without a store gives. `FOUND`:
no row is computed, and all are what they were. The fault run draws from both tables at random.
"""

import contextlib
import copy
import io
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
import torchvision
from PIL import Image, ImageDraw, ImageFile
from sklearn.base import clone
from torch import nn
from torchvision.ops import Permute

from sklearn_featx import ImageReader, Preprocessing, PretrainedFeatureExtractor, slices, tiles
from sklearn_featx.backbones import get_backbone
from sklearn_featx.flow import _recipe
from sklearn_featx.images import _decode, _parts, _pillow
from sklearn_featx.store import FeatureStore

SIDE = 8

# Some entries are about code that torch.fx cannot follow.
pytestmark = pytest.mark.filterwarnings("ignore:backbone 'own' cannot be traced")


class Scene:
    """What an entry needs: random numbers, a folder, a store, a network, and names that are new."""

    def __init__(self, folder, seed=0, draw=0):
        self.rng = np.random.default_rng([seed, draw])
        self.draw = draw
        self.folder = Path(folder)
        self.store = FeatureStore(self.folder / "store")
        self.patch = pytest.MonkeyPatch()

    def pixels(self, channels=3, side=SIDE):
        return self.rng.integers(0, 256, (side, side, channels), dtype=np.uint8)

    def path(self, ending="png"):
        return self.folder / f"{self.draw} {self.rng.integers(2**62)}.{ending}"

    def file(self, ending="png", pixels=None, **options):
        path = self.path(ending)
        Image.fromarray(self.pixels() if pixels is None else pixels).save(path, **options)
        return path

    def net(self):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AvgPool2d(3, 2, 1),
            nn.Flatten(2),
            Transposed(),
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        )
        state = {
            name: torch.from_numpy(self.rng.uniform(0.5, 1, tuple(t.shape)).astype(np.float32))
            for name, t in net.state_dict().items()
            if t.is_floating_point()
        }
        net.load_state_dict(state, strict=False)
        return net.eval()

    def without_store(self, extractor):
        """The same extractor, as far as what it computes goes."""
        extractor = getattr(extractor, "extractor", extractor)
        return clone(extractor).set_params(cache=False)

    def extractor(self, net=None, **parameters):
        settings = {"image_size": SIDE, "cache": self.store} | parameters
        return PretrainedFeatureExtractor(shared_net(self) if net is None else net, **settings)


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


_nets = {}


def shared_net(scene):
    """The network of all entries that change something else; it must not be changed."""
    if "net" not in _nets:
        _nets["net"] = Scene(scene.folder, seed=5).net()
    return _nets["net"]


def computed_rows(scene):
    return sum(scene.store.info().recipes.values())


# --- The image: the same holder, or one that differs in one thing -------------------------------


def of_image(make):
    """Entry of an image: `make` yields a holder, changes one thing, and yields a holder."""

    def entry(scene):
        for holder in make(scene):
            yield scene.extractor(), [holder]

    return entry


def pixel_of_an_array(scene):
    pixels = scene.pixels()
    yield pixels
    changed = pixels.copy()
    changed[tuple(scene.rng.integers(0, (SIDE, SIDE, 3)))] ^= 1 << scene.rng.integers(8)
    yield changed


def pixel_of_an_array_in_place(scene):
    pixels = scene.pixels()
    yield pixels
    pixels[tuple(scene.rng.integers(0, (SIDE, SIDE, 3)))] ^= 1
    yield pixels


def shape_of_an_array(scene):
    pixels = scene.pixels()
    yield pixels
    yield pixels.reshape(SIDE // 2, SIDE * 2, 3)


def type_of_an_array(scene):
    pixels = scene.pixels().astype(np.uint16)
    # Most of the range is used: nothing is to be reported.
    pixels[0, 0] = 65535
    yield pixels
    yield pixels.astype(np.float32) / 65536


def order_of_channels(scene):
    pixels = scene.pixels()
    yield pixels
    yield pixels[:, :, ::-1]


def bytes_of_a_file(scene):
    yield scene.file().read_bytes()
    yield scene.file().read_bytes()


def rewritten(make_new):
    """The content of a file changes; its name, size and modification time stay."""

    def change(scene):
        path, other = (scene.file(compress_level=0) for _ in range(2))
        os.utime(path, ns=(10**18, 10**18))
        before = path.stat()
        yield path
        while path.stat().st_ctime_ns == before.st_ctime_ns and not path.is_symlink():
            make_new(scene, path, other)
            os.utime(path, ns=(10**18, 10**18))
            if path.stat().st_ino != before.st_ino:
                break
        after = path.stat()
        assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        yield path

    return change


def in_place(scene, path, other):
    path.write_bytes(other.read_bytes())


def by_another_file(scene, path, other):
    copied = shutil.copy(other, scene.path())
    copied.replace(path)


def target_of_a_link(scene):
    first, second = (scene.file(compress_level=0) for _ in range(2))
    for file in (first, second):
        os.utime(file, ns=(10**18, 10**18))
    link = scene.path()
    link.symlink_to(first)
    yield link
    link.unlink()
    link.symlink_to(second)
    yield link


def folders_of_equal_names(scene):
    """Two folders whose files have one name, size and modification time."""
    folders = [scene.path("folder") for _ in range(2)]
    for folder in folders:
        folder.mkdir()
        file = scene.file(compress_level=0).rename(folder / "same.png")
        os.utime(file, ns=(10**18, 10**18))
    return folders


def target_of_a_linked_folder(scene):
    link, folders = scene.path("link"), folders_of_equal_names(scene)
    for folder in folders:
        link.unlink(missing_ok=True)
        link.symlink_to(folder, target_is_directory=True)
        yield link / "same.png"


def working_folder(scene):
    for folder in folders_of_equal_names(scene):
        scene.patch.chdir(folder)
        yield "same.png"


def mapped_file(scene):
    path = scene.path("npy")
    for _ in range(2):
        np.save(path, scene.pixels())
        yield np.load(path, mmap_mode="r")


def exif_of_a_file(scene):
    path = scene.file("jpg")
    yield path
    exif = Image.Exif()
    exif[0x0112] = int(scene.rng.integers(2, 9))
    with Image.open(path) as picture:
        changed = scene.path("jpg")
        picture.save(changed, exif=exif, quality="keep")
    yield changed


def picture(change, mode="RGB"):
    """An opened file that is changed in place: its `filename` still names the file."""

    def entry(scene):
        with Image.open(in_mode(scene, mode)) as opened:
            opened.load()
            yield opened
            change(scene, opened)
            yield opened

    return entry


def in_mode(scene, mode):
    path = scene.path()
    Image.fromarray(scene.pixels()).convert(mode).save(path)
    os.utime(path, (1e9, 1e9))
    return path


def random_place(scene):
    return tuple(int(i) for i in scene.rng.integers(0, SIDE, 2))


def draws(scene, opened):
    x, y = random_place(scene)
    level = opened.getpixel((x, y))[0]
    ImageDraw.Draw(opened).point((x, y), ((level + 99) % 256, 1, 2))


def pastes(scene, opened):
    opened.paste(Image.fromarray(scene.pixels(side=3)), random_place(scene))


def page(ending):
    """Pages of one opened file, as `seek` shows them."""

    def entry(scene):
        pages = [Image.fromarray(scene.pixels()) for _ in range(3)]
        path = scene.path(ending)
        pages[0].save(path, save_all=True, append_images=pages[1:])
        os.utime(path, (1e9, 1e9))
        with Image.open(path) as opened:
            yield opened
            opened.seek(int(scene.rng.integers(1, 3)))
            yield opened

    return entry


def converted_mode(scene):
    path = in_mode(scene, "RGB")
    with Image.open(path) as opened:
        yield opened
        gray = opened.convert(scene.rng.choice(["L", "1"]))
        gray.filename = str(path)
        yield gray


def declared_range(scene):
    """A TIFF of 16 bits says which value is white."""
    levels = scene.rng.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    # Most of either range is used: nothing is to be reported.
    levels[0, 0] = 30_000
    for white in (40_000, 50_000):
        path = scene.path("tiff")
        Image.fromarray(levels).save(path, tiffinfo={281: white})
        yield path


def dicom(words, center, width):
    """The content of a DICOM file with 16-bit words and a window."""
    pydicom = pytest.importorskip("pydicom")
    scan = pydicom.Dataset()
    scan.SOPClassUID, scan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    scan.Rows, scan.Columns = words.shape
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 16, 15
    scan.SamplesPerPixel, scan.PixelRepresentation = 1, 0
    scan.PhotometricInterpretation = "MONOCHROME2"
    scan.WindowCenter, scan.WindowWidth = center, width
    scan.PixelData = words.astype("<u2").tobytes()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    scan.save_as(file, enforce_file_format=True)
    return file.getvalue()


def window_of_a_file(scene):
    words = scene.rng.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    for width in (2000, 3000):
        yield dicom(words, 1500, width)


def set_palette(scene, opened):
    opened.putpalette(scene.rng.integers(0, 256, 768, dtype=np.uint8).tobytes())


def set_transparent_color(scene, opened):
    opened.info["transparency"] = opened.getpixel(random_place(scene))


def set_orientation(scene, opened):
    opened.getexif()[0x0112] = int(scene.rng.integers(2, 9))


def volume(scene, name=None):
    """A NIfTI file of random voxels, all of one size and time."""
    nibabel = pytest.importorskip("nibabel")
    voxels = scene.rng.integers(0, 256, (SIDE, SIDE, SIDE, 2), dtype=np.uint8)
    path = scene.path("nii") if name is None else name
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    os.utime(path, ns=(10**18, 10**18))
    return path


def place_of_a_slice(**place):
    def entry(scene):
        first = slices(volume(scene), "axial")[2]
        yield first
        yield replace(first, **place)

    return entry


def volume_of_a_slice(scene):
    path = volume(scene)
    yield slices(path)[2]
    volume(scene, path)
    yield slices(path)[2]


def slide(scene, pixels, name=None):
    """A tiled TIFF, which OpenSlide reads."""
    pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    path = scene.path("tif") if name is None else name
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    os.utime(path, ns=(10**18, 10**18))
    return path


def place_of_a_tile(**place):
    def entry(scene):
        first = tiles(slide(scene, scene.pixels(side=48)), 16, mpp=None, tissue=False)[0]
        yield first
        yield replace(first, **place)

    return entry


def slide_of_a_tile(scene):
    path = slide(scene, scene.pixels(side=48))
    for _ in range(2):
        yield tiles(path, 16, mpp=None, tissue=False)[4]
        slide(scene, scene.pixels(side=48), path)


def decoder_of_a_part(scene):
    entry = slices(volume(scene))[2]
    yield entry
    scene.patch.setattr(_parts, "installed_version", lambda name: version(scene))
    yield entry


IMAGE = {
    "the number of a slice": place_of_a_slice(index=3),
    "the axis of a slice": place_of_a_slice(axis="coronal"),
    "the volume of a series": place_of_a_slice(volume=1),
    "the file of a slice, in place": volume_of_a_slice,
    "the place of a tile": place_of_a_tile(x=16),
    "the extent of a tile": place_of_a_tile(side=32),
    "the size of a tile": place_of_a_tile(size=8),
    "the slide of a tile, in place": slide_of_a_tile,
    "the decoder of a part of a file": decoder_of_a_part,
    "a pixel of an array": pixel_of_an_array,
    "a pixel of an array, in place": pixel_of_an_array_in_place,
    "the shape of an array": shape_of_an_array,
    "the type of an array": type_of_an_array,
    "the order of channels": order_of_channels,
    "bytes": bytes_of_a_file,
    "a file rewritten in place": rewritten(in_place),
    "a file replaced by another": rewritten(by_another_file),
    "the target of a link": target_of_a_link,
    "the target of a linked folder": target_of_a_linked_folder,
    "the working folder of a relative path": working_folder,
    "a file mapped into memory": mapped_file,
    "the EXIF orientation of a file": exif_of_a_file,
    "the white of a TIFF": declared_range,
    "the window of a DICOM file": window_of_a_file,
    "the page of a TIFF": page("tiff"),
    "the frame of a GIF": page("gif"),
    "a picture drawn on": picture(draws),
    "a picture pasted into": picture(pastes),
    "a picture shrunk": picture(lambda scene, p: p.thumbnail((5, 5))),
    "the alpha of a picture": picture(lambda scene, p: p.putalpha(int(scene.rng.integers(200)))),
    "the mode of a picture": converted_mode,
    "the palette of a picture": picture(set_palette, "P"),
    "the transparent color of a picture": picture(set_transparent_color, "P"),
    "the EXIF orientation of a picture": picture(set_orientation),
}

# --- Reading, preprocessing, network, arithmetic -------------------------------------------------


def with_parameters(**parameters):
    def entry(scene):
        X = [scene.pixels()]
        yield scene.extractor(), X
        yield scene.extractor(**parameters), X

    return entry


def with_file_parameters(**parameters):
    def entry(scene):
        X = [scene.file()]
        yield scene.extractor(), X
        yield scene.extractor(**parameters), X

    return entry


def with_patch(target, name, value):
    """Change a global; `value` is a constant or a function of the draw, so that it is new."""

    def entry(scene):
        X = [scene.pixels(side=2 * SIDE)]
        yield scene.extractor(), X
        scene.patch.setattr(target, name, value(scene) if callable(value) else value)
        yield scene.extractor(), X

    return entry


def version(scene):
    return f"99.{scene.draw}"


def with_plugin(scene):
    X = [scene.file()]
    yield scene.extractor(), X
    plugin = SimpleNamespace(__module__=f"plugin_{scene.draw}.heif")
    scene.patch.setitem(Image.OPEN, "FOREIGN", (plugin, None))
    yield scene.extractor(), X


def with_codec(scene):
    X = [scene.file("jpg")]
    yield scene.extractor(), X
    scene.patch.setattr(_pillow, "_library_versions", lambda: (f"libjpeg_turbo {version(scene)}",))
    yield scene.extractor(), X


def with_window_of_files(scene):
    words = scene.rng.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    X = [dicom(words, 500, 3000)]
    yield scene.extractor(), X
    window = (scene.rng.integers(400, 600), scene.rng.integers(2000, 2900))
    yield scene.extractor(reader=ImageReader(window=tuple(map(float, window)))), X


def with_dicom_codec(scene):
    words = scene.rng.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    X = [dicom(words, 500, 3000)]
    yield scene.extractor(), X
    scene.patch.setattr(_decode, "installed_version", lambda name: f"{name} {version(scene)}")
    yield scene.extractor(), X


def with_preprocess(**change):
    def entry(scene):
        X = [scene.pixels(side=2 * SIDE)]
        backbone = get_backbone(shared_net(scene))
        scene.patch.setattr(backbone, "preprocess", replace(backbone.preprocess, resize=(9, 9)))
        extractor = scene.extractor(image_size=None)
        yield extractor, X
        scene.patch.setattr(backbone, "preprocess", replace(backbone.preprocess, **change))
        _compute_engines_of(backbone).clear()
        yield extractor, X

    return entry


def _compute_engines_of(backbone):
    from sklearn_featx.flow import _compute

    return _compute._engines.get(backbone, {})


def with_network(change):
    def entry(scene):
        X, net = [scene.pixels()], copy.deepcopy(shared_net(scene))
        yield scene.extractor(net), X
        with torch.no_grad():
            change(scene, net)
        yield scene.extractor(net), X

    return entry


def with_package(name, layer):
    """The version of a package, one of whose layers the network has."""

    def entry(scene):
        package = pytest.importorskip(name)
        X, net = [scene.pixels()], nn.Sequential(nn.Conv2d(3, 4, 3), layer())
        yield scene.extractor(net), X
        scene.patch.setattr(package, "__version__", version(scene))
        yield scene.extractor(net), X

    return entry


def timm_layer():
    from timm.layers import LayerNorm2d

    return LayerNorm2d(4)


def one_weight(scene, net):
    tensors = [p for p in net.parameters() if p.numel()]
    flat = tensors[scene.rng.integers(len(tensors))].data.view(-1).view(torch.int32)
    flat[scene.rng.integers(len(flat))] += 1


OWN_CODE = """
from torch import nn

SCALE = {scale}

def deepest(x):
    return x * {deepest}

def helper(x, by={default}):
    return deepest(x) + by

def closure(by):
    return lambda x: x + by

inner = closure({closure})

class Own(nn.Module):
    factor = {factor}

    def __init__(self):
        super().__init__()
        self.slope = {slope}

    def forward(self, x):
        # {comment}
        x = inner(helper(x)) * SCALE * self.factor + self.slope
        return (x if not {untraced} or x.sum() > -9e9 else -x).mean((2, 3))
"""
CONSTANTS = ("scale", "deepest", "default", "closure", "factor", "slope")


def own_network(scene, numbers):
    """A network of a module that was just written or edited."""
    space = {"__name__": f"module_{scene.rng.integers(2**62)}"}
    exec(OWN_CODE.format(**numbers), space)
    return space["Own"]()


def with_code(name, untraced):
    """One constant in the code of an own network, wherever it stands, by one last bit."""

    def entry(scene):
        X = [scene.pixels()]
        numbers = {key: float(np.float32(scene.rng.uniform(1, 2))) for key in CONSTANTS}
        numbers |= {"comment": "", "untraced": untraced}
        yield scene.extractor(own_network(scene, numbers)), X
        if name == "comment":
            numbers["comment"] = f"A comment\n\n        # of {scene.draw} lines."
        else:
            numbers[name] = float(np.nextafter(np.float32(numbers[name]), np.float32(3)))
        yield scene.extractor(own_network(scene, numbers)), X

    return entry


def with_hook(scene):
    X, net = [scene.pixels()], copy.deepcopy(shared_net(scene))
    yield scene.extractor(net), X
    by, part = float(scene.rng.uniform(1, 2)), net[int(scene.rng.integers(5))]
    part.register_forward_hook(lambda module, args, output: output * by)
    yield scene.extractor(net), X


def one_statistic(scene, net):
    net[1].running_var.view(torch.int32)[scene.rng.integers(4)] += 1


def with_pool(**layout):
    def entry(scene):
        X = [scene.pixels()]
        yield scene.extractor(), X
        backbone = get_backbone(shared_net(scene))
        scene.patch.setattr(backbone, "network", replace(backbone.network, **layout))
        _compute_engines_of(backbone).clear()
        yield scene.extractor(), X
        _compute_engines_of(backbone).clear()

    return entry


def with_frames(scene):
    frames = [Image.fromarray(scene.pixels()) for _ in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    for frame in (0, 1):
        yield scene.extractor(reader=ImageReader(frames=frame)), [file.getvalue()]


def with_storage(scene):
    X = [scene.pixels()]
    yield scene.extractor(), X
    scene.store = FeatureStore(scene.store.path, storage=scene.rng.choice(["float16", "bfloat16"]))
    yield scene.extractor(), X


RECIPE = {
    "image_size": with_parameters(image_size=9),
    "layer": with_parameters(layer="0"),
    "pooling": with_parameters(pooling="max"),
    "value_range": with_parameters(reader=ImageReader(value_range=(0, 256))),
    "window": with_parameters(reader=ImageReader(window=(0.5, 1))),
    "window of DICOM files": with_window_of_files,
    "the version of pydicom": with_dicom_codec,
    "value_range of files": with_file_parameters(reader=ImageReader(value_range=(0, 256))),
    "preprocessing": with_parameters(preprocessing="fast"),
    "crop_mode": with_parameters(preprocessing=Preprocessing(crop_mode="border")),
    "frames": with_frames,
    "type": with_parameters(precision="bfloat16"),
    "the mean": with_preprocess(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)),
    "the standard deviation": with_preprocess(mean=(0.0,) * 3, std=(0.1, 0.2, 0.3)),
    "the interpolation": with_preprocess(interpolation="bicubic"),
    "the resize": with_preprocess(resize=(10, 9)),
    "the crop": with_preprocess(crop=(7, 7)),
    "the version of Pillow": with_patch(PIL, "__version__", version),
    "the version of a codec": with_codec,
    "a plugin of Pillow": with_plugin,
    "truncated files": with_patch(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    "the version of PyTorch": with_patch(torch, "__version__", version),
    "the version of torchvision": with_package("torchvision", lambda: Permute([0, 2, 3, 1])),
    **{
        f"{name} in {kind} code": with_code(name, untraced)
        for name in CONSTANTS
        for kind, untraced in (("traced", False), ("untraced", True))
    },
    "a hook of a part": with_hook,
    "the version of timm": with_package("timm", timm_layer),
    "the version of this package": with_patch(_recipe, "__version__", version),
    "oneDNN": with_patch(torch.backends.mkldnn, "enabled", False),
    "one weight by one ulp": with_network(one_weight),
    "one statistic by one ulp": with_network(one_statistic),
    "a stride": with_network(lambda scene, net: setattr(net[0], "stride", (2, 1))),
    "a dilation": with_network(lambda scene, net: setattr(net[0], "dilation", (2, 1))),
    "a padding mode": with_network(lambda scene, net: setattr(net[0], "padding_mode", "circular")),
    "an epsilon": with_network(lambda scene, net: setattr(net[1], "eps", scene.rng.uniform(1, 2))),
    "an activation": with_network(lambda scene, net: net.__setitem__(2, nn.SiLU())),
    "the layout of tokens": with_pool(prefix_tokens=1),
    "the type of the store": with_storage,
}

# A cell of a notebook: its code is edited and run again, the names in it stay.
CELL = """
LEVEL = {constant}

class Settings:
    factor = {setting}

def helper(x, factor={default}):
    return x * factor + LEVEL

def closed(level):
    def add(x):
        return x + level
    return add

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        nn.init.constant_(self.conv.weight, {weight})
        nn.init.constant_(self.conv.bias, 0.5)
        self.scale = {attribute}
        self.add = closed({closure})

    def features(self, x):
        return self.add(helper(self.conv(x))) * Settings.factor

    def forward(self, x):
        return self.features(x).mean((2, 3)) * self.scale + {literal}
"""
PARTS = {
    "constant": 1.5, "setting": 2.5, "default": 3.5, "attribute": 4.5, "closure": 5.5,
    "literal": 6.5, "weight": 0.25,
}  # fmt: skip


def run_cell(**changes):
    cell = {"nn": nn, "__name__": "a_notebook"}
    exec(CELL.format(**PARTS | changes), cell)
    return cell


def with_cell(part, *, factory=False):
    def entry(scene):
        X, changed = [scene.pixels()], {part: PARTS[part] + scene.rng.uniform(1, 2)}
        for cell in (run_cell(), run_cell(**changed)):
            yield scene.extractor(cell["Net"] if factory else cell["Net"]()), X

    return entry


def with_global_variable(scene):
    X, cell = [scene.pixels()], run_cell()
    net = cell["Net"]()
    yield scene.extractor(net), X
    cell["LEVEL"] = scene.rng.uniform(2, 3)
    yield scene.extractor(net), X


def with_hook(scene):
    X, net = [scene.pixels()], run_cell()["Net"]()
    yield scene.extractor(net), X
    level = scene.rng.uniform(1, 2)
    net.conv.register_forward_hook(lambda module, inputs, output: output * level)
    yield scene.extractor(net), X


def run_again(scene):
    X = [scene.pixels()]
    for _ in range(2):
        yield scene.extractor(run_cell()["Net"]()), X


# Code of own networks, and settings that layers of PyTorch do not show.
OWN_NETWORK = {
    **{f"the {part} in a cell": with_cell(part) for part in PARTS},
    "the constant of a factory": with_cell("constant", factory=True),
    "a global variable": with_global_variable,
    "a hook": with_hook,
    "padding that counts": with_network(
        lambda scene, net: setattr(net[3], "count_include_pad", False)
    ),
    "a divisor": with_network(
        lambda scene, net: setattr(net[3], "divisor_override", int(scene.rng.integers(2, 99)))
    ),
    "the order of norms": with_network(lambda scene, net: setattr(net[6], "norm_first", True)),
    "the number of heads": with_network(
        lambda scene, net: (
            setattr(net[6].self_attn, "num_heads", 4),
            setattr(net[6].self_attn, "head_dim", 1),
        )
    ),
}

NEW = {**{name: of_image(make) for name, make in IMAGE.items()}, **RECIPE, **OWN_NETWORK}

# --- What must not matter ------------------------------------------------------------------------


def other_holder(hold):
    """The same picture in another holder: `hold` makes both from pixels."""

    def entry(scene):
        for holder in hold(scene, scene.pixels()):
            yield scene.extractor(), [holder]

    return entry


def touched(scene, pixels):
    path = scene.file(pixels=pixels)
    os.utime(path, (1e9, 1e9))
    yield path
    os.utime(path)
    yield path


def renamed(scene, pixels):
    path = scene.file(pixels=pixels)
    yield path
    yield path.rename(scene.path())


def copied_file(scene, pixels):
    path = scene.file(pixels=pixels)
    yield path
    yield shutil.copy(path, scene.path())


def slice_of_a_copied_file(scene, pixels):
    path = volume(scene)
    yield slices(path)[2]
    yield slices(shutil.copy(path, scene.path("nii")))[2]


def tile_of_a_copied_slide(scene, pixels):
    path = slide(scene, np.tile(pixels, (4, 4, 1)))
    yield tiles(path, 16, mpp=None, tissue=False)[0]
    yield tiles(shutil.copy(path, scene.path("tif")), 16, mpp=None, tissue=False)[0]


def file_and_bytes(scene, pixels):
    path = scene.file(pixels=pixels)
    yield path
    kinds = [bytes, bytearray, memoryview]
    yield kinds[scene.rng.integers(3)](path.read_bytes())


def relative_path(scene, pixels):
    path = scene.file(pixels=pixels)
    yield str(path)
    scene.patch.chdir(scene.folder)
    yield path.name


def picture_and_copy(scene, pixels):
    with Image.open(scene.file(pixels=pixels)) as opened:
        yield opened
        yield opened.copy()


def picture_with_other_metadata(scene, pixels):
    for dpi in (72, 300):
        with Image.open(scene.file(pixels=pixels, dpi=(dpi, dpi))) as opened:
            yield opened


def picture_and_array(scene, pixels):
    with Image.open(scene.file(pixels=pixels)) as opened:
        yield opened
        yield pixels


def memory_layout(scene, pixels):
    yield pixels
    layouts = [np.asfortranarray(pixels), pixels.transpose(2, 0, 1), np.repeat(pixels, 2, 0)[::2]]
    yield layouts[scene.rng.integers(3)]


def byte_order(scene, pixels):
    yield pixels.astype("<u2") * 256
    yield (pixels.astype("<u2") * 256).astype(">u2")


def tensor(scene, pixels):
    yield pixels
    yield torch.from_numpy(pixels)


def rows_beside(scene):
    X = [scene.pixels() for _ in range(3)]
    yield scene.extractor(), X
    yield OneByOne(scene.extractor()), X


class OneByOne:
    def __init__(self, extractor):
        self.extractor = extractor

    def transform(self, X):
        return np.concatenate([self.extractor.transform([x]) for x in X])


def order(scene):
    X = [scene.pixels() for _ in range(5)]
    yield scene.extractor(), X
    chosen = scene.rng.permutation(5)
    yield Permuted(scene.extractor(), chosen), X


class Permuted:
    def __init__(self, extractor, chosen):
        self.extractor, self.chosen = extractor, chosen

    def transform(self, X):
        rows = self.extractor.transform([X[i] for i in self.chosen])
        return rows[np.argsort(self.chosen)]


def another(make):
    """Another extractor of the same work."""

    def entry(scene):
        X = [scene.pixels() for _ in range(3)]
        extractor = scene.extractor()
        yield extractor, X
        yield make(scene, extractor), X

    return entry


def same_network(make):
    def entry(scene):
        X, net = [scene.pixels()], copy.deepcopy(shared_net(scene))
        yield scene.extractor(net), X
        yield scene.extractor(make(net)), X

    return entry


def products_in_float32(scene):
    X, before = [scene.pixels()], torch.get_float32_matmul_precision()
    try:
        yield scene.extractor(), X
        torch.set_float32_matmul_precision("medium")
        yield scene.extractor(), X
    finally:
        torch.set_float32_matmul_precision(before)


def context(make):
    """A context in which the rows are computed, and outside of which they are found."""

    def entry(scene):
        X = [scene.pixels()]
        with make():
            yield scene.extractor(), X
        yield scene.extractor(), X

    return entry


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def other_defaults():
    """PyTorch's global state of a user: default type, generator, number of threads."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(7)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_rng_state(state)
        torch.set_num_threads(threads)


def reloaded(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = Scene(".", seed=9).net()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


FOUND = {
    **{
        name: other_holder(hold)
        for name, hold in {
            "the time of a file": touched,
            "the name of a file": renamed,
            "the place of a file": copied_file,
            "the place of a volume": slice_of_a_copied_file,
            "the place of a slide": tile_of_a_copied_slide,
            "a relative path": relative_path,
            "bytes for a file": file_and_bytes,
            "a copy of a picture": picture_and_copy,
            "metadata of a picture": picture_with_other_metadata,
            "an array for a picture": picture_and_array,
            "the layout of an array": memory_layout,
            "the order of bytes": byte_order,
            "a tensor for an array": tensor,
        }.items()
    },
    "rows beside it": rows_beside,
    "the order of rows": order,
    "batch_size": another(lambda s, e: e.set_params(batch_size=int(s.rng.integers(1, 5)))),
    "n_jobs": another(lambda s, e: e.set_params(n_jobs=int(s.rng.integers(1, 3)))),
    "verbose": another(lambda s, e: e.set_params(verbose=0.5)),
    "on_error": another(lambda s, e: e.set_params(on_error="nan")),
    "the store's handle": another(lambda s, e: e.set_params(cache=s.store.path)),
    "a clone": another(lambda s, e: clone(e)),
    "a pickle": another(lambda s, e: pickle.loads(pickle.dumps(e))),
    "autocast": context(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "inference mode": context(torch.inference_mode),
    "deterministic algorithms": context(deterministic),
    "defaults of PyTorch": context(other_defaults),
    "products in float32": products_in_float32,
    "a limit of pixels": with_patch(Image, "MAX_IMAGE_PIXELS", 10**6),
    "a version of numpy": with_patch(np, "__version__", version),
    "a package that is not used": with_patch(torchvision, "__version__", version),
    "a cell that is run again": run_again,
    "a copy of the network": same_network(copy.deepcopy),
    "a reloaded network": same_network(reloaded),
    "training mode": same_network(lambda net: net.train()),
    "a comment in traced code": with_code("comment", False),
    "a comment in untraced code": with_code("comment", True),
    "gradients": same_network(lambda net: net.requires_grad_(False)),
}


# How far a row may be from one that is computed without a store: by the type that the store keeps;
# and in the last bits, which depend on how many rows a pass has.
TOLERANCE = {"float32": 0, "float16": 1e-3, "bfloat16": 1e-2}
LAST_BITS = 1e-6


def check(entry, scene, n_new):
    """Run an entry of a table: how many rows are computed after the change, and which values."""
    steps = entry(scene)
    try:
        extractor, X = next(steps)
        before = extractor.transform(X)
        known = computed_rows(scene)
        extractor, X = next(steps)
        after = extractor.transform(X)
        assert computed_rows(scene) - known == (len(X) if n_new else 0)
        exact = scene.without_store(extractor).transform(X)
        if n_new:
            np.testing.assert_allclose(after, exact, rtol=TOLERANCE[scene.store.storage])
        else:
            np.testing.assert_array_equal(after, before)
            np.testing.assert_allclose(after, exact, rtol=LAST_BITS)
        steps.close()
    finally:
        scene.patch.undo()


@pytest.fixture(autouse=True)
def _trusting_memo(monkeypatch):
    """A memo of files that knows even those that changed just now."""
    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", -(10**18))


@pytest.mark.parametrize("name", NEW)
def test_change_this_alone_and_the_row_is_new(name, tmp_path):
    check(NEW[name], Scene(tmp_path), True)


@pytest.mark.parametrize("name", FOUND)
def test_change_this_and_the_row_is_found(name, tmp_path):
    check(FOUND[name], Scene(tmp_path), False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("table", ["NEW", "FOUND"])
def test_five_hundred_random_changes(table, tmp_path):
    entries = globals()[table]
    names = sorted(entries)
    rng = np.random.default_rng(0)
    wrong = []
    for draw in range(1, 501):
        name = names[rng.integers(len(names))]
        try:
            check(entries[name], Scene(tmp_path, seed=1, draw=draw), table == "NEW")
        except AssertionError as error:
            wrong.append((draw, name, str(error)[:200]))
    assert wrong == []
