"""Bags: rows of images become rows of bags.

The images of bags go through the flow alone, and their rows are cached alone. A bag with an
unreadable image is unreadable.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..exceptions import ImageError
from ..images import Bags, pool_bag
from ._failures import readable
from ._recipe import Recipe


@contextmanager
def located(bags: Bags) -> Iterator[None]:
    """Context manager: an error of an image names the row of its bag.

    Parameters
    ----------
    bags : Bags
        The bags.
    """
    try:
        yield
    except ImageError as error:
        if error.row is None:
            raise
        raise bags.located(error) from error.__cause__


class BagRows:
    """Rows of the images of bags that are not pooled: an access gives them, and their numbers.

    Parameters
    ----------
    rows : ndarray or StoredRows
        Rows of images.
    members : list of ndarray of int
        Positions in `rows` of the images of each bag.
    """

    of_bags = True

    def __init__(self, rows: Any, members: Sequence[AnyArray]) -> None:
        self._rows = rows
        self._members = members

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, positions: list[int]) -> tuple[AnyArray, AnyArray]:
        """Read the rows of some bags, one bag after the other, and the size of each."""
        chosen = [self._members[position] for position in positions]
        sizes = np.array([len(members) for members in chosen], dtype=np.int64)
        flat = np.concatenate(chosen) if chosen else np.empty(0, np.intp)
        return self._rows[flat.tolist()], sizes


def rows_of_bags(
    taps: Sequence[Any], failures: Sequence[ImageError], bags: Bags, recipe: Recipe
) -> tuple[list[Any], list[ImageError]]:
    """Return the rows of each tap, pooled, and the bags that cannot be read.

    Parameters
    ----------
    taps : sequence of ndarray or StoredRows
        Rows of each tap, of the images that can be read.
    failures : sequence of ImageError
        Images that cannot be read.
    bags : Bags
        The bags.
    recipe : Recipe
        Recipe of the rows.
    """
    places = np.full(len(bags.images), -1)
    known = readable(len(bags.images), failures)
    places[known] = np.arange(len(known))
    errors = bags.failures(failures)
    members = [places[bags.members(i)] for i in readable(len(bags), errors).tolist()]
    if not members:
        return [], errors
    return [
        BagRows(rows, members) if recipe.keeps_images_at(tap) else _pooled(rows, members, bags)
        for tap, rows in zip(recipe.taps, taps, strict=True)
    ], errors


def _pooled(rows: Any, members: Sequence[AnyArray], bags: Bags) -> AnyArray:
    return np.stack(
        [pool_bag(rows[places.tolist()], bags.pooling, bags.n_channels) for places in members]
    )
