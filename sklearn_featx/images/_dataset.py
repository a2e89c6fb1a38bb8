"""Datasets: torch datasets as image collections, or as the list of their files.

This package reads the files itself if the result is the same: for a torchvision folder dataset with
the default loader and no transform. Any other dataset returns its items itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .._messages import cause
from .._parallel import ForkSafeLock
from .._typing import Levels
from ..exceptions import ImageError
from ._collection import ImageCollection, Positions, as_index, errors_at
from ._entries import as_item
from ._items import Item
from ._options import ReadOptions
from ._range_use import RangeUse


def dataset_paths(dataset: Any) -> list[str] | None:
    """Return the paths of all items; None if the items are not plain image files."""
    if _is_subset(dataset):
        paths = dataset_paths(dataset.dataset)
        return None if paths is None else [paths[i] for i in dataset.indices]
    if not _is_plain_folder(dataset):
        return None
    samples = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    return [path for path, _ in samples] if samples else None


def _is_subset(dataset: Any) -> bool:
    """Whether a dataset is PyTorch's own `Subset`: another `Subset` may apply a transform."""
    kind = type(dataset)
    return kind.__name__ == "Subset" and kind.__module__ == "torch.utils.data.dataset"


def _is_plain_folder(dataset: Any) -> bool:
    """Whether ``dataset[i][0]`` is the decoded file ``samples[i][0]``."""
    reader = getattr(type(dataset), "__getitem__", None)
    loader = getattr(dataset, "loader", None)
    return (
        getattr(reader, "__module__", "") == "torchvision.datasets.folder"
        and getattr(loader, "__module__", "") == "torchvision.datasets.folder"
        and getattr(loader, "__name__", "") == "default_loader"
        and getattr(dataset, "transform", None) is None
    )


class DatasetItems(ImageCollection):
    """Items of a user's dataset, fetched by one thread after the other.

    A lock protects the dataset, since datasets are written for worker processes, not for threads. A
    dataset that returns different images for one index (random augmentation) raises an error as
    soon as a difference is detected, because the row cached under its digest would be wrong.

    Parameters
    ----------
    dataset : object with ``__getitem__``
        Its items are images or tuples that begin with one.
    rows : ndarray of int
        Positions in the dataset.
    options : ReadOptions
        How an item becomes an image.
    use : RangeUse, default=None
        The record of values, shared with the collection that `take` was called on.
    """

    def __init__(
        self,
        dataset: Any,
        rows: npt.NDArray[np.intp],
        options: ReadOptions,
        use: RangeUse | None = None,
    ) -> None:
        self.range_use: RangeUse = RangeUse() if use is None else use
        self._dataset = dataset
        self._rows = rows
        self._options = options
        self._lock = ForkSafeLock()
        self._seen: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> Levels:
        with errors_at(i):
            item = self._fetched(i)
            if i in self._seen:
                self._refuse_change(i, item)
            return item.load()

    def digest(self, i: int) -> str:
        with errors_at(i):
            return self._seen.setdefault(i, self._fetched(i).digest())

    def take(self, rows: Positions) -> "DatasetItems":
        chosen = self._rows[as_index(rows)]
        return DatasetItems(self._dataset, chosen, self._options, self.range_use)

    def item(self, i: int) -> Item:
        """Fetch one item of the dataset, whose channels are asked for one after the other."""
        item = self._fetched(i)
        self._refuse_change(i, item)
        return item

    def _refuse_change(self, i: int, item: Item) -> None:
        found = item.digest()
        if self._seen.setdefault(i, found) != found:
            raise ImageError(
                "the dataset returned another image than before: its transform is random. Pass a "
                "dataset without augmentation."
            )

    def _fetched(self, i: int) -> Item:
        with self._lock:
            entry = self._fetch(int(self._rows[i]))
        return as_item(entry, None, self._options, self.range_use)

    def _fetch(self, row: int) -> Any:
        try:
            entry = self._dataset[row]
        except Exception as error:
            # The dataset's own code runs here, which may raise anything.
            reason = f"the dataset raised {cause(error)}"
            raise ImageError(reason) from error
        # A segmentation mask, an image as well, is a target here.
        return entry[0] if isinstance(entry, tuple) else entry

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_seen": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=ForkSafeLock())
