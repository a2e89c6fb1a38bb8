"""The flow: from images to rows, through the cache and a frozen network.

The path of an image through this package::

    images ──activations──▶ cached_rows ──▶ row in the store?  yes: read
                            shelves, image_keys                 no: compute ──▶ workers ──▶ engine
                                                                    claims: made by readers
    recipe: what is done to an image (every part of it is in the key of a row)
    settings: how it is computed (none of it changes a row)
    failures: records of unreadable images, which keep the other rows aligned

Imports the parts (images, backbones, engines, store) and numpy.
"""

from ._activations import (
    Rows,
    StoredRows,
    TapRows,
    activations,
    first_shapes,
    held_or_stored,
    joined,
    renumbered,
    slices,
    stream,
    warn_of_range,
)
from ._cache import Cache, Decision, decide, open_store
from ._failures import Failure, as_table, readable, refuse_none_readable, renumber, spread, warn_of
from ._image_keys import row_keys
from ._recipe import Recipe, Tap, choose_preprocess
from ._settings import Settings
from ._user_function import UserFunction
from ._view_rows import FixedViews, FreshViews, rows_of_views

__all__ = [
    "Cache",
    "Decision",
    "Failure",
    "FixedViews",
    "FreshViews",
    "Recipe",
    "Rows",
    "Settings",
    "StoredRows",
    "Tap",
    "TapRows",
    "UserFunction",
    "activations",
    "as_table",
    "choose_preprocess",
    "decide",
    "first_shapes",
    "held_or_stored",
    "joined",
    "open_store",
    "readable",
    "refuse_none_readable",
    "renumber",
    "renumbered",
    "row_keys",
    "rows_of_views",
    "slices",
    "spread",
    "stream",
    "warn_of",
    "warn_of_range",
]
