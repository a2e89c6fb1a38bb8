"""The store: rows on disk, cached for every later run and process.

The contract:

1. A row that is read equals the row that was put (after :meth:`RecipeRows.roundtrip`) bit for bit.
   A damaged row is a miss; it is deleted and counted in :meth:`FeatureStore.info`.
2. A failure (a full disk, a deleted folder, a damaged file) causes misses and at most one
   `StoreWarning` per store and process, never an error or a wrong result.
3. Many processes may read and write at the same time, and each may be killed at any moment.
4. Files of other programs are never deleted or changed.

Correct use: claim rows, compute and put them, and only then wait for the rows of other processes::

    todo = rows.claim(keys)                     # positions that this thread should compute
    rows.put_many([keys[i] for i in todo], compute(todo))
    absent = rows.wait(keys, timeout=60)        # positions that are still absent: compute them too
    found, values = rows.get_many(keys)         # a row may have been evicted: check `found`

The package imports numpy, the standard library and the ground modules.
"""

from ._codec import Storage
from ._location import place_problem
from ._rows import RecipeRows
from ._session import session_store
from ._store import FeatureStore, parse_size

__all__ = [
    "FeatureStore",
    "RecipeRows",
    "Storage",
    "parse_size",
    "place_problem",
    "session_store",
]
