"""Tiles of whole slides: places, tissue, pixels and what their digests depend on."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import image_groups, slices, tiles
from sklearn_featx.exceptions import ImageError, InputError, MissingDependencyError
from sklearn_featx.images import as_image_collection

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
GLASS, TISSUE = (245, 243, 244), (200, 100, 170)
# Left, top, right and bottom of the tissue.
BOX = (320, 256, 640, 448)


def pixels():
    slide = np.empty((768, 1024, 3), np.uint8)
    slide[:] = GLASS
    left, top, right, bottom = BOX
    slide[top:bottom, left:right] = TISSUE
    slide[top:bottom, left:right] += RNG.integers(0, 40, (bottom - top, right - left, 3), np.uint8)
    return slide


@pytest.fixture
def write(tmp_path):
    def write(slide, name="slide.tif", mpp=0.25, n_levels=2):
        """A tiled TIFF with its pyramid, as scanners write them."""
        with tifffile.TiffWriter(tmp_path / name) as file:
            for level in range(n_levels):
                per_cm = 0 if mpp is None else 1e4 / mpp / 2**level
                file.write(
                    slide[:: 2**level, :: 2**level],
                    tile=(64, 64),
                    photometric="rgb",
                    resolution=(per_cm, per_cm) if per_cm else None,
                    resolutionunit="CENTIMETER" if per_cm else None,
                    subfiletype=int(level > 0),
                )
        return str(tmp_path / name)

    return write


def test_all_tiles_cover_the_slide(write):
    slide = pixels()
    found = tiles(write(slide), 128, mpp=None, tissue=False)
    places = [(tile.x, tile.y) for tile in found]
    assert places == [(x, y) for y in range(0, 768, 128) for x in range(0, 1024, 128)]
    images = as_image_collection(found)
    for i, (x, y) in enumerate(places):
        np.testing.assert_array_equal(images.load(i), slide[y : y + 128, x : x + 128])


def test_micrometers_per_pixel(write):
    slide = pixels()
    path = write(slide)
    found = tiles(path, 64, mpp=0.5, tissue=False)
    assert (found[1].x, found[1].y, found[1].side, found[1].size) == (128, 0, 128, 64)
    # The second level has this resolution.
    images = as_image_collection(found)
    place = next(i for i, tile in enumerate(found) if (tile.x, tile.y) == (384, 256))
    np.testing.assert_array_equal(images.load(place), slide[256:384:2, 384:512:2])
    # The third does not exist: twice the pixels are read, and reduced.
    quarter = tiles(path, 64, mpp=1.0, tissue=False)
    picture = Image.fromarray(slide[0:256:2, 256:512:2]).resize((64, 64), Image.Resampling.BOX)
    loaded = as_image_collection(quarter).load(1)
    np.testing.assert_array_equal(loaded, np.asarray(picture))
    assert (quarter[1].x, quarter[1].side) == (256, 256)


@pytest.mark.parametrize("n_levels", [1, 2, 4])
def test_background_is_left_out(n_levels, write):
    path = write(pixels(), n_levels=n_levels)
    left, top, right, bottom = BOX
    for share in (0.1, 0.5, 1.0):
        found = {(t.x, t.y) for t in tiles(path, 64, mpp=None, tissue=share)}
        for x in range(0, 1024, 64):
            for y in range(0, 768, 64):
                width = max(0, min(right, x + 64) - max(left, x))
                height = max(0, min(bottom, y + 64) - max(top, y))
                assert ((x, y) in found) == (width * height >= share * 64 * 64)
    assert len(tiles(path, 64, mpp=None)) == len(tiles(path, 64, mpp=None, tissue=0.1)) == 15


def test_black_and_gray_are_no_tissue(write):
    slide = np.full((256, 256, 3), 240, np.uint8)
    slide[:128, :128] = 20
    assert tiles(write(slide), 128, mpp=None) == []


def test_overlap_and_edges(write):
    path = write(pixels())
    found = tiles(path, 256, mpp=None, overlap=128, tissue=False)
    assert sorted({tile.x for tile in found}) == list(range(0, 1024 - 255, 128))
    assert tiles(path, np.int64(256), mpp=None, overlap=np.int64(128), tissue=False) == found
    assert tiles(path, 2000, mpp=None) == []


def test_a_slide_without_resolution(write):
    path = write(pixels(), mpp=None)
    wanted = r"mpp=0.5: .*does not name them. Pass slide_mpp=10 / magnification, or mpp=None"
    with pytest.raises(InputError, match=wanted):
        tiles(path)
    assert len(tiles(path, mpp=None, tissue=False)) == 12
    named = tiles(write(pixels(), "named.tif"), 64)
    given = tiles(path, 64, slide_mpp=0.25)
    assert named
    assert [t.place for t in given] == [t.place for t in named]
    # The user's goes before the file's.
    assert tiles(write(pixels(), "other.tif", mpp=1.0), 64, slide_mpp=0.25)[0].side == 128


def test_the_resolution_of_a_printer_is_none(write):
    """72 dots per inch: each pixel would be hundreds of tiles."""
    path = write(pixels(), mpp=25400 / 72)
    wanted = r"the slide names 352.8, too many for a microscope. Pass slide_mpp=10 / magnification"
    with pytest.raises(InputError, match=wanted):
        tiles(path)
    assert len(tiles(path, mpp=None, tissue=False)) == 12


def test_the_side_of_a_tile_follows_the_exact_resolution(write):
    # TRIDENT 119: 512 pixels of 0.5 micrometers are 966 of 0.265, not twice as many.
    path = write(np.zeros((1000, 1000, 3), np.uint8), mpp=0.265)
    assert tiles(path, 512, mpp=0.5, tissue=False)[0].side == 966


def aperio(path, description):
    """A slide as Aperio's scanners write it: a tiled TIFF with a description."""
    with tifffile.TiffWriter(path) as file:
        text = f"Aperio Image Library v11.2.1 \r\n1024x768 (256x256) RAW{description}"
        options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
        file.write(pixels(), description=text, **options)
    return path


def test_a_slide_of_aperio(tmp_path):
    named = aperio(tmp_path / "named.svs", "|AppMag = 20|MPP = 0.4990")
    assert openslide.OpenSlide(named).properties["openslide.vendor"] == "aperio"
    assert tiles(named, 256, mpp=0.998, tissue=False)[0].side == 512
    first = as_image_collection(tiles(named, 64, mpp=0.499, tissue=False)).load(0)
    np.testing.assert_array_equal(first, pixels()[:64, :64])
    unnamed = aperio(tmp_path / "unnamed.svs", "|AppMag = 40")
    with pytest.raises(InputError, match=r"Pass slide_mpp=0.25, by its magnification of 40, or"):
        tiles(unnamed)


def test_digests_are_of_content_and_place(write, tmp_path):
    path = write(pixels())
    copied = shutil.copy(path, tmp_path / "copy.tif")
    digests = {}
    for name, found in {
        "first": tiles(path, 256, mpp=None, tissue=False),
        "copy": tiles(copied, 256, mpp=None, tissue=False),
        "smaller": tiles(path, 128, mpp=0.5, tissue=False),
    }.items():
        images = as_image_collection(found)
        digests[name] = [images.digest(i) for i in range(len(images))]
    assert digests["first"] == digests["copy"]
    assert len({*digests["first"], *digests["smaller"]}) == 24
    # The slide is open: another file of this name is another slide.
    first = as_image_collection(tiles(path, 256, mpp=None, tissue=False))
    before = first.load(5)
    write(pixels()[::-1])
    assert first.digest(5) != digests["first"][5]
    assert (first.load(5) != before).any()


def test_slides_of_several_files(tmp_path):
    # The file of a Hamamatsu slide (.vms) names its JPEG files: those of two slides may be equal.
    index = (
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nSourceLens=20\n"
        "PhysicalWidth=64000\nPhysicalHeight=64000\nImageFile=a.jpg\nMapFile=b.jpg\nMacroImage=c.jpg\n"
    )
    entries = []
    for name, color in (("one", TISSUE), ("two", (90, 90, 200)), ("copy", TISSUE)):
        (tmp_path / name).mkdir()
        for part in "abc":
            picture = Image.new("RGB", (128, 128), color)
            path = tmp_path / name / f"{part}.jpg"
            picture.save(path, restart_marker_rows=1, subsampling=0, quality=95)
        path = tmp_path / name / "slide.vms"
        path.write_text(index)
        entries += tiles(path, 64, mpp=None)[:1]
    rows = as_image_collection(entries)
    assert [tuple(rows.load(i)[0, 0] // 10) for i in range(2)] == [(20, 10, 17), (9, 9, 20)]
    one, two, copy = (rows.digest(i) for i in range(3))
    assert one == copy != two


def test_tiles_are_small_entries(write):
    path = write(pixels())
    found = tiles(path, 128, mpp=None)
    assert pickle.loads(pickle.dumps(found)) == found
    assert len(pickle.dumps(found[0])) < 300
    assert set(image_groups(found, by=r"(\w+)\.tif").tolist()) == {0}
    assert as_image_collection(found).n_pixels(0) == 128 * 128


@pytest.mark.parametrize(
    "bad",
    [{"size": 0}, {"overlap": 256}, {"mpp": 0}, {"mpp": "20x"}, {"slide_mpp": 0}, {"tissue": 2}],
)
def test_impossible_parameters(bad, write):
    with pytest.raises(InputError, match=f"{next(iter(bad))}="):
        tiles(write(pixels()), **bad)


def test_files_that_are_no_slides(tmp_path):
    path = tmp_path / "slide.svs"
    with pytest.raises(ImageError, match="the file cannot be read"):
        tiles(path)
    path.write_bytes(b"no slide")
    with pytest.raises(ImageError, match="OpenSlide cannot read it"):
        tiles(path)


@pytest.mark.parametrize("parts", [tiles, slices])
def test_an_address_is_no_local_file(parts):
    with pytest.raises(
        ImageError, match=r"'https://host/a\.svs\?\.\.\.': is an address.*Fetch"
    ) as caught:
        parts("https://user:secret@host/a.svs?token=secret")
    assert "secret" not in str(caught.value)


def test_a_damaged_tile_names_its_slide(write):
    path = write(pixels())
    found = tiles(path, 128, mpp=None)
    with Path(path).open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(ImageError, match=r"row 0 .*slide\.tif"):
        as_image_collection(found).load(0)


def test_a_tile_that_is_too_large(write, monkeypatch):
    found = tiles(write(pixels(), n_levels=1), 256, mpp=None, tissue=False)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        as_image_collection(found).load(0)


def test_without_openslide(write, monkeypatch):
    path = write(pixels())
    found = tiles(path, mpp=None)
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    with pytest.raises(MissingDependencyError, match=r"sklearn-featx\[slides\]"):
        tiles(path)
    with pytest.raises(ImageError, match=r"row 0 .*sklearn-featx\[slides\]"):
        as_image_collection(found).load(0)
