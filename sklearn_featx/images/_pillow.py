"""Pillow's plugins and settings: the only module that handles this global state.

HEIF and JPEG XL files are readable if pillow-heif or pillow-jxl-plugin is installed. The plugins
are registered when a file needs them, so the import of this package changes no global state.
"""

import contextlib
import functools
import importlib
from typing import NamedTuple

import PIL
from PIL import Image, ImageFile, features

from .._digest import installed_version, version_of
from ..exceptions import ImageError

# Formats that Pillow recognizes but does not decode itself: they contain no pixels, or need
# Ghostscript, which this package does not start on files that were found in a folder.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Libraries that decode for Pillow: builds of one Pillow version may have different versions of
# them.
_LIBRARIES = ("libjpeg_turbo", "jpg", "jpg_2000", "libtiff", "webp", "avif", "littlecms2", "zlib")
# Optional plugins: module and distribution.
_OPTIONAL = {"pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin"}
# Pillow opens MPO files as JPEG and registers their suffix only for writing.
_OPENED_AS_ANOTHER = {"MPO"}


class PillowSettings(NamedTuple):
    """The settings of Pillow that decide which files are readable.

    Parameters
    ----------
    max_image_pixels : int or None
        ``PIL.Image.MAX_IMAGE_PIXELS``.
    load_truncated_images : bool
        ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES``.
    plugins : tuple of str
        Modules of registered plugins that are not Pillow's own.
    """

    max_image_pixels: int | None
    load_truncated_images: bool
    plugins: tuple[str, ...]


def pillow_settings() -> PillowSettings:
    """Return the settings of this process."""
    modules = {str(getattr(factory, "__module__", "")) for factory, _ in Image.OPEN.values()}
    plugins = {name for name in modules if name and not name.startswith(("PIL.", "__main__"))}
    truncated = bool(ImageFile.LOAD_TRUNCATED_IMAGES)
    return PillowSettings(Image.MAX_IMAGE_PIXELS, truncated, tuple(sorted(plugins)))


def apply_pillow_settings(settings: PillowSettings) -> None:
    """Apply the settings of another process to this one."""
    Image.MAX_IMAGE_PIXELS = settings.max_image_pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = settings.load_truncated_images
    for name in settings.plugins:
        # Plugins register themselves on import, except pillow-heif; see `register_plugins`.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@functools.cache
def register_plugins() -> bool:
    """Register the installed optional plugins; return whether there are any."""
    found = False
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        found = True
    with contextlib.suppress(ImportError):
        # The plugin registers itself.
        importlib.import_module("pillow_jxl")
        found = True
    return found


def decoder_versions() -> list[str]:
    """Return the versions of Pillow, of its libraries and of plugins.

    The two optional plugins are included if they are installed, since a file may register them
    later; other plugins are included if they are registered.
    """
    registered = {name.partition(".")[0] for name in pillow_settings().plugins} - set(_OPTIONAL)
    plugins = sorted(f"{name} {version_of(name)}" for name in registered)
    return [f"Pillow {PIL.__version__}", *_library_versions(), *plugins]


@functools.cache
def _library_versions() -> tuple[str, ...]:
    libraries = [f"{name} {features.version(name)}" for name in _LIBRARIES]
    return (*libraries, *(f"{name} {installed_version(name)}" for name in _OPTIONAL.values()))


def refuse_bomb(pixels: int) -> None:
    """Reject an image above Pillow's pixel limit; up to twice the limit, Pillow only warns."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise ImageError(f"the image has {pixels} pixels, more than {pixel_limit(pixels)}")


def pixel_limit(needed: int | None = None) -> str:
    """Return the end of a message about a possible bomb: Pillow's limit, and how to raise it.

    Parameters
    ----------
    needed : int, default=None
        The limit that would let the image pass; None: unknown.
    """
    to = "to a larger number" if needed is None else f"= {needed}"
    return (
        f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}, and may be a decompression bomb. "
        f"If you trust the file, set PIL.Image.MAX_IMAGE_PIXELS {to}."
    )


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow decodes, in lower case, with a dot."""
    register_plugins()
    # This call imports Pillow's own plugins, which adds them to `OPEN`.
    registered = Image.registered_extensions()
    readable = {*Image.OPEN, *_OPENED_AS_ANOTHER} - _NOT_DECODED
    return frozenset(suffix for suffix, name in registered.items() if name in readable)
