"""Whole-slide images: tiles as entries of X, read when they are needed.

OpenSlide reads the formats of scanners: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, DICOM
and tiled TIFF. A tile has its place in pixels of the largest level. It is read from the smallest
level that has all its pixels, and reduced to its size. Color profiles are not applied.

The rule of background: in an overview of the slide, a pixel shows tissue if its largest and
smallest color differ by at least 15 of 255, and a tile is kept if at least a tenth of its pixels
do. Glass is nearly colorless; so are black pen and dust. Colored pen counts as tissue.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..._digest import stat_signature
from ..._messages import cause, shown
from ..._optional import import_optional
from ..._typing import Levels
from ...exceptions import ImageError, InputError
from .._options import ReadOptions
from .._parts import Part, refuse_address
from .._pillow import refuse_bomb
from .._recent import Recent
from .._scaling import Note
from ._numbers import numbers_to_levels

SLIDE_PACKAGES = ("openslide-python", "openslide-bin")

TISSUE_CHROMA = 15
TISSUE_SHARE = 0.1

# Pixels of a tile's side in the overview, and of the overview that is read at once.
_OVERVIEW_SIDE, _MOST_OVERVIEW_SIDE = 16, 2048

# The resolution of printers, up to 1200 dots per inch, is no microscope's.
_MOST_MPP = 20.0

_slides: Recent[Any] = Recent(8)
_companions: Recent[str] = Recent(10_000)


@dataclass(frozen=True, slots=True)
class Tile(Part):
    """One tile of a whole-slide image, read when it is needed; made by `tiles`.

    Parameters
    ----------
    path : str
        The slide.
    x, y : int
        Left and upper edge, in pixels of the largest level.
    side : int
        Length of its sides there.
    size : int
        Length of its sides in the picture.
    """

    path: str
    x: int
    y: int
    side: int
    size: int

    @property
    def place(self) -> tuple[str | int | float | None, ...]:
        """All that names the tile within the slide."""
        return "tile", self.x, self.y, self.side, self.size

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that decode it."""
        return SLIDE_PACKAGES

    @property
    def companions(self) -> str:
        """OpenSlide's hash: the file of some formats only names those that have the pixels."""
        return _companions.get(_state(self.path), lambda: _quick_hash(_opened(self.path)))

    @property
    def n_pixels(self) -> int | None:
        """Number of its pixels."""
        return self.size**2

    def levels(self, options: ReadOptions, note: Note | None) -> Levels:
        """Read the tile as levels (size, size, 3)."""
        slide = _opened(self.path)
        region = _read(slide, self.x, self.y, self.side, self.side / self.size)
        if region.size != (self.size, self.size):
            region = region.resize((self.size, self.size), Image.Resampling.BOX)
        return numbers_to_levels(np.asarray(region), None, options, note)


def tiles(
    path: str | os.PathLike[str],
    size: int = 256,
    *,
    mpp: float | None = 0.5,
    slide_mpp: float | None = None,
    overlap: int = 0,
    tissue: bool | float = True,
) -> list[Tile]:
    """List the tiles of a whole-slide image that show tissue, as entries of X or as one bag.

    Only an overview is read here; a tile is read when its features are computed.

    Parameters
    ----------
    path : str or path-like
        A slide of any format that OpenSlide reads.
    size : int, default=256
        Length of a tile's sides in pixels.
    mpp : float or None, default=0.5
        Micrometers per pixel of the tiles: 0.5 is about a magnification of 20, 0.25 of 40. None:
        pixels of the largest level, whatever their size.
    slide_mpp : float or None, default=None
        Micrometers per pixel of the largest level, for a slide that does not name them: about 10
        divided by its magnification. None: as the slide names them.
    overlap : int, default=0
        Pixels that neighbors share.
    tissue : bool or float, default=True
        Least share of a tile that shows tissue, from 0 to 1, measured in an overview with at least
        16 x 16 pixels for a tile. A pixel shows tissue if its largest and smallest color differ by
        at least 15 of 255. True: 0.1. False: all tiles.

    Returns
    -------
    tiles : list of Tile
        Row by row, with `x`, `y` and `side` in pixels of the largest level. Those that the edges
        of the slide would cut are left out. ``X = tiles(path)`` gives a row for each tile;
        ``X = [tiles(path) for path in paths]`` with a reader that pools bags gives a row for each
        slide.

    Raises
    ------
    InputError
        If a parameter has an impossible value; or if `mpp` is not None, `slide_mpp` is None, and
        the slide states no micrometers per pixel, or more than 20, as files with the resolution of
        a printer do.
    ImageError
        If the slide cannot be read.
    MissingDependencyError
        If OpenSlide is not installed: ``pip install "sklearn-featx[slides]"``.

    See Also
    --------
    slices : Slices of a volume.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import tifffile
    >>> from sklearn_featx import tiles
    >>> slide = np.full((512, 768, 3), 245, np.uint8)
    >>> slide[:, 256:512] = 200, 100, 170
    >>> path = Path(tempfile.mkdtemp()) / "slide.tif"
    >>> tifffile.imwrite(path, slide, tile=(256, 256), photometric="rgb")
    >>> [(tile.x, tile.y) for tile in tiles(path, 256, mpp=None)]
    [(256, 0), (256, 256)]
    """
    share = _checked(size, mpp, slide_mpp, overlap, tissue)
    size = int(size)
    name = str(os.fsdecode(path))
    refuse_address(name)
    slide = _opened(name)
    scale = 1.0 if mpp is None else mpp / (slide_mpp or _named_mpp(slide, mpp))
    side = max(1, round(size * scale))
    step = max(1, round((size - overlap) * scale))
    width, height = slide.dimensions
    columns, rows = range(0, width - side + 1, step), range(0, height - side + 1, step)
    places = [(x, y) for y in rows for x in columns]
    if share > 0 and places:
        kept = _tissue(slide, columns, rows, side) >= share
        places = [place for place, keep in zip(places, kept.ravel(), strict=True) if keep]
    return [Tile(name, x, y, side, size) for x, y in places]


def _checked(size: Any, mpp: Any, slide_mpp: Any, overlap: Any, tissue: Any) -> float:
    """Return the share of tissue; raise `InputError` if a parameter is impossible."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"size={shown(size)}: expected a number of pixels.")
    if not isinstance(overlap, int | np.integer) or not 0 <= overlap < size:
        raise InputError(f"overlap={shown(overlap)}: expected pixels from 0 to size - 1.")
    for name, value in (("mpp", mpp), ("slide_mpp", slide_mpp)):
        if value is not None and not (
            isinstance(value, int | float | np.number) and 0 < value < math.inf
        ):
            raise InputError(f"{name}={shown(value)}: expected micrometers per pixel, or None.")
    if isinstance(tissue, bool):
        return TISSUE_SHARE if tissue else 0.0
    if not (isinstance(tissue, int | float | np.number) and 0 <= tissue <= 1):
        raise InputError(f"tissue={shown(tissue)}: expected True, False or a share from 0 to 1.")
    return float(tissue)


def _opened(path: str) -> Any:
    """Return the open slide; a few are kept open while their files do not change."""
    openslide = import_optional("openslide", extra="slides", purpose="Reading whole-slide images")
    state = _state(path)
    try:
        return _slides.get(state, lambda: openslide.OpenSlide(path))
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}", path=path) from error
    except openslide.OpenSlideError as error:
        raise ImageError(f"OpenSlide cannot read it: {cause(error)}", path=path) from error


def _state(path: str) -> tuple[str | int, ...]:
    try:
        return path, *stat_signature(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}", path=path) from error


def _quick_hash(slide: Any) -> str:
    return str(slide.properties.get("openslide.quickhash-1", ""))


def _named_mpp(slide: Any, mpp: float) -> float:
    """Return the micrometers per pixel that a slide names for its largest level."""
    try:
        own = [float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
    except (KeyError, ValueError):
        own = []
    if own and all(0 < value <= _MOST_MPP for value in own):
        return sum(own) / 2
    named = [value for value in own if value > _MOST_MPP]
    what = f"names {named[0]:.4g}, too many for a microscope" if named else "does not name them"
    raise InputError(
        f"mpp={mpp:g}: micrometers per pixel, of which the slide {what}. Pass slide_mpp="
        f"{_by_magnification(slide)}, or mpp=None for pixels of its largest level."
    )


def _by_magnification(slide: Any) -> str:
    """Return a hint at the micrometers per pixel of a slide."""
    try:
        magnification = float(slide.properties["openslide.objective-power"])
        return f"{10 / magnification:g}, by its magnification of {magnification:g}"
    except (KeyError, ValueError, ZeroDivisionError):
        return "10 / magnification"


def _read(slide: Any, x: int, y: int, side: int, scale: float) -> Image.Image:
    """Read a square over white, from the smallest level with all pixels that are wanted."""
    level = slide.get_best_level_for_downsample(scale * 1.001)
    n_pixels = max(1, round(side / slide.level_downsamples[level]))
    refuse_bomb(n_pixels**2)
    region = slide.read_region((x, y), level, (n_pixels, n_pixels))
    white = Image.new("RGB", region.size, (255, 255, 255))
    white.paste(region, mask=region.getchannel("A"))
    return white


def _tissue(slide: Any, columns: range, rows: range, side: int) -> npt.NDArray[np.float64]:
    """Return the share of tissue of each tile, of shape (rows, columns)."""
    shares = np.zeros((len(rows), len(columns)))
    for first, last, region, scale in _overviews(slide, columns, rows, side):
        colored = np.ptp(np.asarray(region), axis=2) >= TISSUE_CHROMA
        n_pixels = max(1, round(side / scale))
        for r in range(first[0], last[0]):
            for c in range(first[1], last[1]):
                top = round((rows[r] - rows[first[0]]) / scale)
                left = round((columns[c] - columns[first[1]]) / scale)
                part = colored[top : top + n_pixels, left : left + n_pixels]
                shares[r, c] = part.mean() if part.size else 0.0
    return shares


def _overviews(
    slide: Any, columns: range, rows: range, side: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int], Image.Image, float]]:
    """Read blocks of tiles in little detail.

    Yields the first row and column of a block, the ones after its last, its picture, and the
    pixels of the largest level for one of it.
    """
    level = slide.get_best_level_for_downsample(max(1.0, side / _OVERVIEW_SIDE))
    scale = float(slide.level_downsamples[level])
    n_tiles = max(1, int(_MOST_OVERVIEW_SIDE * scale - side) // columns.step + 1)
    for r in range(0, len(rows), n_tiles):
        for c in range(0, len(columns), n_tiles):
            extent = (min(n_tiles, max(len(rows) - r, len(columns) - c)) - 1) * columns.step + side
            region = _read(slide, columns[c], rows[r], extent, scale)
            last = (min(r + n_tiles, len(rows)), min(c + n_tiles, len(columns)))
            yield (r, c), last, region, scale
