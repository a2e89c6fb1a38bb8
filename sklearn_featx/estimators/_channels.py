"""Channels: whether a network reads the channels that a reader chooses."""

from .._messages import shown
from ..backbones import Backbone
from ..exceptions import InputError
from ..images import Bags, ImageCollection
from ._image_reader import ImageReader


def check_channels(reader: ImageReader, backbone: Backbone) -> None:
    """Raise an `InputError` if a network does not read the chosen channels."""
    channels, wanted = reader.channels, backbone.preprocess.channels
    if isinstance(channels, str):
        n_channels = 1 if channels == "each" else wanted
    else:
        n_channels = len(channels)
    if n_channels == wanted or (n_channels, wanted) in ((1, 3), (3, 1)):
        return
    remedy = f"Choose {wanted}"
    remedy += ", one as a gray image, or 'each'." if wanted == 3 else "."
    if wanted not in (1, 3):
        remedy = "Leave `channels` out: it gets all channels of an image."
    raise InputError(
        f"channels={shown(channels)} gives images of {n_channels} channel"
        f"{'s' if n_channels != 1 else ''}, and the network {backbone.name!r} reads {wanted}. "
        f"{remedy}"
    )


def n_channels_of(images: ImageCollection) -> int | None:
    """Return the number of channels of an image if each passes alone, else None."""
    return images.n_channels if isinstance(images, Bags) and images.of_channels else None
