"""Shelves: the places of rows in a store, one shelf for each tap, and the keys of images."""

from collections.abc import Sequence
from typing import NamedTuple, Self, TypeAlias, cast

from ..exceptions import ImageError
from ..images import ImageCollection
from ..store import FeatureStore, RecipeRows
from ._image_keys import Signature, file_signatures, known_keys
from ._recipe import Recipe, Tap
from ._settings import Settings

# Positions of images by the taps whose rows are missing: images with the same taps share a pass.
Missing: TypeAlias = dict[tuple[Tap, ...], list[int]]


class _Shelf(NamedTuple):
    """The rows of one tap in a store."""

    tap: Tap
    rows: RecipeRows


class CachedRows(NamedTuple):
    """Images whose rows a store has, or will have: their keys, recipe, settings and shelves.

    Parameters
    ----------
    images : ImageCollection
        The images.
    keys : list of str or None
        Digest of each image; None if a file must be read for it. Readers set it.
    signatures : sequence of (str, int, int, int, int) or None
        State of each file before its key was known; None without one.
    failures : list of ImageError
        Unreadable images that have no file.
    recipe : Recipe
        The recipe of the rows.
    settings : Settings
        Settings of the computation.
    store : FeatureStore
        The store.
    shelves : sequence of _Shelf
        One for each tap.
    """

    images: ImageCollection
    keys: list[str | None]
    signatures: Sequence[Signature | None]
    failures: list[ImageError]
    recipe: Recipe
    settings: Settings
    store: FeatureStore
    shelves: Sequence[_Shelf]

    def only(self, taps: tuple[Tap, ...]) -> Self:
        """Return the cached rows of some of the taps."""
        shelves = [shelf for shelf in self.shelves if shelf.tap in taps]
        return self._replace(recipe=self.recipe.only(taps), shelves=shelves)

    def take(self, positions: Sequence[int]) -> Self:
        """Return the cached rows of some of the images, all of them readable."""
        return self._replace(
            images=self.images.take(positions),
            keys=[self.keys[i] for i in positions],
            signatures=[self.signatures[i] for i in positions],
            failures=[],
        )

    def keys_of(self, positions: Sequence[int]) -> list[str]:
        """Return the keys of some of the images, which must be known."""
        return cast("list[str]", [self.keys[i] for i in positions])

    def unchanged(self, positions: Sequence[int]) -> list[bool]:
        """Return whether the file of each image is unchanged since its key was computed."""
        now = file_signatures(self.images, positions, self.store)
        return [s == self.signatures[i] for s, i in zip(now, positions, strict=True)]

    def missing(self, positions: Sequence[int]) -> Missing:
        """Group images by the taps whose rows are missing; of equal images, only the first."""
        keys = self.keys_of(positions)
        lacking: dict[int, list[Tap]] = {}
        for shelf in self.shelves:
            for place in shelf.rows.missing(keys):
                lacking.setdefault(place, []).append(shelf.tap)
        groups: Missing = {}
        for place in sorted(lacking):
            groups.setdefault(tuple(lacking[place]), []).append(positions[place])
        return groups


def cached_rows(
    images: ImageCollection, recipe: Recipe, settings: Settings, store: FeatureStore
) -> CachedRows:
    """Return the shelves of a recipe's rows, with the keys that need no file to be opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    recipe : Recipe
        The recipe of the rows.
    settings : Settings
        Settings of the computation.
    store : FeatureStore
        The store.
    """
    shelves = [
        _Shelf(tap, store.rows(recipe.digest(tap), recipe.describe(tap))) for tap in recipe.taps
    ]
    # The signatures come before the keys, so that a later change of a file is noticed.
    signatures = file_signatures(images, range(len(images)), store)
    keys, failures = known_keys(images, store, signatures, settings.on_error)
    return CachedRows(images, keys, signatures, failures, recipe, settings, store, shelves)
