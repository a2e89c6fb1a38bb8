"""Claims: the choice of the rows that this call computes, made by the threads that read images.

Processes that need the same rows share the work: a thread claims the row of an image before it
reads the image. A file of unknown content is read once. Its bytes are digested, and decoded only if
the row of this content is neither cached nor claimed.
"""

from collections.abc import Iterator, Sequence

from ..exceptions import ImageError
from ..images import BytesItem, Chosen
from ._failures import row_of
from ._image_keys import Signature, open_file
from ._shelves import CachedRows, Missing

# The maximum size of the files that a thread holds open: few photographs, or many thumbnails.
_MOST_OPEN_BYTES = 16 * 2**20
# Number of digests that are written together, since each write is a transaction.
_NOTES_PER_WRITE = 256


class Claims:
    """Choice and claims of images whose rows are neither cached nor computed by others.

    Several threads may call it at the same time.

    Parameters
    ----------
    job : CachedRows
        The images. If the key of an image is known, the rows of all taps are missing.

    Attributes
    ----------
    elsewhere : list of int
        Images whose rows are cached by now, or are computed by others.
    partly : dict of tuple of Tap to list of int
        Files that lack only some taps, by these taps.
    read : set of int
        Images whose keys are those of the bytes that are decoded.
    """

    def __init__(self, job: CachedRows) -> None:
        self.elsewhere: list[int] = []
        self.partly: Missing = {}
        self.read: set[int] = set()
        self._job = job
        self._rows = job.shelves[0].rows.for_workers()
        # By key: the first image that has it, and those that are claimed.
        self._first: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._learned: dict[Signature, str] = {}

    def __call__(self, rows: Sequence[int]) -> Iterator[Chosen]:
        """Yield the chosen ones of some images, with the files that are open."""
        for part in self._parts(rows):
            yield from self._choose(part)

    def end(self, done: set[int]) -> None:
        """End the claims on rows that were not computed, so that no process waits for them."""
        left = [key for key, row in self._held.items() if row not in done]
        if left:
            self._rows.release(left)
        self.note_files(1)

    def drop(self, failures: Sequence[ImageError]) -> None:
        """End the claims on unreadable images."""
        keys = [self._job.keys[row_of(error)] for error in failures]
        held = [key for key in keys if key and self._held.pop(key, None) is not None]
        if held:
            self._rows.release(held)

    def note_files(self, least: int = _NOTES_PER_WRITE) -> None:
        """Write the digests of files to the store, if there are at least `least`."""
        if len(self._learned) >= least:
            # One by one, since readers add digests at the same time.
            notes = [self._learned.popitem() for _ in range(len(self._learned))]
            files, digests = zip(*notes, strict=True)
            self._job.store.remember_files(files, digests)

    def _parts(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Divide rows into parts whose files may be open at the same time."""
        part: list[int] = []
        n_bytes = 0
        for row in rows:
            signature = self._job.signatures[row]
            size = 0 if self._job.keys[row] or signature is None else signature[1]
            if part and n_bytes + size > _MOST_OPEN_BYTES:
                yield part
                part, n_bytes = [], 0
            part.append(int(row))
            n_bytes += size
        if part:
            yield part

    def _choose(self, part: Sequence[int]) -> Iterator[Chosen]:
        opened = {i: open_file(self._job.images, i) for i in part if self._job.keys[i] is None}
        mine = self._claim(self._wanted(part, opened))
        for row in part:
            item = opened.pop(row, None)
            if row in mine or isinstance(item, ImageError):
                yield Chosen(row, item)

    def _wanted(self, part: Sequence[int], opened: dict[int, BytesItem | ImageError]) -> list[int]:
        """Images whose rows of all taps are missing now."""
        for row, item in opened.items():
            if isinstance(item, BytesItem):
                self._learn(row, item)
        keys = self._job.keys
        # Failures have no key.
        first = [i for i in part if (key := keys[i]) and self._first.setdefault(key, i) == i]
        missing = self._job.missing([i for i in first if i in opened])
        new = set(missing.pop(self._job.recipe.taps, ()))
        for taps, rows in missing.items():
            self.partly.setdefault(taps, []).extend(rows)
        return [i for i in first if i not in opened or i in new]

    def _learn(self, row: int, item: BytesItem) -> None:
        content = item.content()
        self._job.keys[row] = self._job.images.digest_of(row, content)
        self.read.add(row)
        # That of a remote file comes with its content.
        signature = self._job.signatures[row] or item.state
        if signature is not None:
            self._learned[signature] = content

    def _claim(self, wanted: Sequence[int]) -> set[int]:
        keys = self._job.keys_of(wanted)
        # Noted before the call: an interrupt may come between a claim and its return.
        self._held.update(zip(keys, wanted, strict=True))
        mine = {wanted[c] for c in self._rows.claim(keys)} if keys else set()
        for key, row in zip(keys, wanted, strict=True):
            if row not in mine:
                del self._held[key]
                self.elsewhere.append(row)
        return mine
