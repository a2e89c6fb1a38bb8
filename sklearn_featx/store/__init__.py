"""Rows on disk: what a trunk computed for an image, found again by any later run or process.

The contract, which the flow above relies on:

1. A row that is read is bitwise the row that was put (after :meth:`Rows.roundtrip`), or it is a
   miss. A damaged row is a miss, is deleted, and is counted in :meth:`FeatureStore.info`.
2. A store never costs a result. Whatever fails (a full disk, a folder that vanished, a damaged
   file) ends in misses and in at most one `StoreWarning` per store and process.
3. Many processes may read and write at once, and any of them may be killed at any moment.
4. Nothing foreign is ever deleted or changed.

Right use: ask for claims, compute, put, and only then wait for what others compute::

    todo = rows.claim(keys)                    # positions that this thread should compute
    rows.put_many([keys[i] for i in todo], compute(todo))
    left = rows.wait(keys, timeout=60)         # positions that are still absent: compute them too
    found, values = rows.get_many(keys)        # a row can still be gone: `found` decides, always

Imports: numpy, the standard library and the ground modules.
"""

from ._rows import Rows
from ._session import session_store
from ._store import FeatureStore, parse_size

__all__ = [
    "FeatureStore",
    "Rows",
    "parse_size",
    "session_store",
]
