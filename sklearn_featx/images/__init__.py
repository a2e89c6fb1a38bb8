"""Images: conversion of every supported X to arrays of pixels or numbers.

The path of an image through this package::

    X ──as_image_collection──▶ ImageCollection ──load(i)──▶ uint8 (H, W, C) ──prepare──▶ item
                                     │                                                    │
                                 digest(i)                              iterate_batches ──▶ Batch

No file is read before `load` or `digest`, except to count the frames where several are wanted. The
package needs numpy and Pillow; tensors and dataframes are recognized by their methods, without
importing their packages.
"""

from ._adapter import as_image_collection
from ._addresses import foreign_host, local_path
from ._bag_pooling import bag_poolings, n_parts, pool_bag
from ._bags import Bags
from ._channels import Channels
from ._collection import ImageCollection, Source
from ._decode import decode, digest_reading
from ._encode import data_uri
from ._frames import Frames
from ._geometry import seen_part
from ._items import BytesItem, RemoteItem
from ._options import ReadOptions
from ._pillow import PillowSettings, apply_pillow_settings, image_suffixes, pillow_settings
from ._prefetch import (
    Batch,
    Choose,
    Chosen,
    Prepare,
    choose_all,
    iterate_batches,
    prepare_callable,
    prepare_geometry,
)
from ._recognize import is_missing
from ._remote_listing import are_remote_scans, remote_listing
from ._views import Variation, Views
from .formats import has_scan_name, has_volume_name, is_scan
from .formats._identifiers import check_identifier, holds_identifiers, read_identifier
from .formats._slides import Tile, tiles
from .formats._volume_slices import Slice, slices

__all__ = [
    "Bags",
    "Batch",
    "BytesItem",
    "Channels",
    "Choose",
    "Chosen",
    "Frames",
    "ImageCollection",
    "PillowSettings",
    "Prepare",
    "ReadOptions",
    "RemoteItem",
    "Slice",
    "Source",
    "Tile",
    "Variation",
    "Views",
    "apply_pillow_settings",
    "are_remote_scans",
    "as_image_collection",
    "bag_poolings",
    "check_identifier",
    "choose_all",
    "data_uri",
    "decode",
    "digest_reading",
    "foreign_host",
    "has_scan_name",
    "has_volume_name",
    "holds_identifiers",
    "image_suffixes",
    "is_missing",
    "is_scan",
    "iterate_batches",
    "local_path",
    "n_parts",
    "pillow_settings",
    "pool_bag",
    "prepare_callable",
    "prepare_geometry",
    "read_identifier",
    "remote_listing",
    "seen_part",
    "slices",
    "tiles",
]
