"""Pillow's optional plugins and its settings: global state of a process, handled here alone.

HEIF and JPEG XL are read where pillow-heif or pillow-jxl-plugin is installed. Both are registered
when a file needs them: nothing global changes on import.
"""

import contextlib
import functools
import importlib
from typing import NamedTuple

from PIL import Image, ImageFile

# Formats that Pillow recognizes and does not decode by itself: they hold no pixels, or Ghostscript
# does it, which is not started on files that nobody named.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
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


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow decodes, in lower case, with their dots."""
    register_plugins()
    # It imports Pillow's own plugins, which then are in `OPEN`.
    registered = Image.registered_extensions()
    readable = {*Image.OPEN, *_OPENED_AS_ANOTHER} - _NOT_DECODED
    return frozenset(suffix for suffix, name in registered.items() if name in readable)
