"""Pillow's optional plugins and its settings: global state of a process, handled here alone.

HEIF and JPEG XL are read where pillow-heif or pillow-jxl-plugin is installed. Both are registered
when a file needs them: nothing global changes on import.
"""

import contextlib
import functools
import importlib
from typing import NamedTuple

import PIL
from PIL import Image, ImageFile, features

from .._digest import installed_version, version_of

# Formats that Pillow recognizes and does not decode by itself: they hold no pixels, or Ghostscript
# does it, which is not started on files that nobody named.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Libraries in which Pillow decodes: distributions build one version of Pillow with several of them.
_LIBRARIES = ("libjpeg_turbo", "jpg", "jpg_2000", "libtiff", "webp", "avif", "littlecms2", "zlib")
# Plugins that are registered where they are installed: module and distribution.
_OPTIONAL = {"pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin"}
# Pillow opens it as JPEG, and registers its suffix for writing alone.
_OPENED_AS_ANOTHER = {"MPO"}


class PillowSettings(NamedTuple):
    """What decides which files Pillow can read.

    Parameters
    ----------
    max_image_pixels : int or None
        ``PIL.Image.MAX_IMAGE_PIXELS``.
    load_truncated_images : bool
        ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES``.
    plugins : tuple of str
        Modules of other packages whose plugins are registered.
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
    """Make the settings of another process those of this one."""
    Image.MAX_IMAGE_PIXELS = settings.max_image_pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = settings.load_truncated_images
    for name in settings.plugins:
        # Plugins register themselves on import; pillow-heif, when a file needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@functools.cache
def register_plugins() -> bool:
    """Register the optional plugins that are installed; whether there is any."""
    found = False
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        found = True
    with contextlib.suppress(ImportError):
        # Registers itself.
        importlib.import_module("pillow_jxl")
        found = True
    return found


def decoder_versions() -> list[str]:
    """Return Pillow's version, those of its libraries, and those of other packages' plugins.

    The two optional plugins count where they are installed, since a file registers them when it
    needs them; others where they are registered.
    """
    registered = {name.partition(".")[0] for name in pillow_settings().plugins} - set(_OPTIONAL)
    plugins = sorted(f"{name} {version_of(name)}" for name in registered)
    return [f"Pillow {PIL.__version__}", *_library_versions(), *plugins]


@functools.cache
def _library_versions() -> tuple[str, ...]:
    libraries = [f"{name} {features.version(name)}" for name in _LIBRARIES]
    return (*libraries, *(f"{name} {installed_version(name)}" for name in _OPTIONAL.values()))


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow decodes, in lower case, with their dots."""
    register_plugins()
    # It imports Pillow's own plugins, which then are in `OPEN`.
    registered = Image.registered_extensions()
    readable = {*Image.OPEN, *_OPENED_AS_ANOTHER} - _NOT_DECODED
    return frozenset(suffix for suffix, name in registered.items() if name in readable)
