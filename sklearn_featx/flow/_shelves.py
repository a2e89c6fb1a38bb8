"""Shelves: where the rows of some images are kept, one shelf for each tap, and by which keys."""

from collections.abc import Sequence
from typing import NamedTuple, Self, TypeAlias, cast

from ..exceptions import ImageError
from ..images import ImageCollection
from ..store import FeatureStore, RecipeRows
from ._keys import Signature, file_signatures, known_keys
from ._recipe import Recipe, Tap
from ._settings import Settings

# Positions of images, by the taps whose rows they lack: those share a pass.
Missing: TypeAlias = dict[tuple[Tap, ...], list[int]]


class _Shelf(NamedTuple):
    """Where the rows of one tap are kept."""

    tap: Tap
    rows: RecipeRows


class CachedRows(NamedTuple):
    """Images on their way to cached rows: what, by which keys, how, and where it is kept.

    Parameters
    ----------
    images : ImageCollection
        The images.
    keys : list of str or None
        Digest of each; None where a file has to be read for it. Readers fill it.
    signatures : sequence of (str, int, int, int, int) or None
        State of each file before its key was known.
    failures : list of ImageError
        Images of which it was seen without a file that they cannot be read.
    recipe : Recipe
        What a row is.
    settings : Settings
        How it is computed.
    store : FeatureStore
        Where it is kept.
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
        """Return the same for some of the taps."""
        shelves = [shelf for shelf in self.shelves if shelf.tap in taps]
        return self._replace(recipe=self.recipe.only(taps), shelves=shelves)

    def take(self, positions: Sequence[int]) -> Self:
        """Return the same for some of the images, all of which can be read."""
        return self._replace(
            images=self.images.take(positions),
            keys=[self.keys[i] for i in positions],
            signatures=[self.signatures[i] for i in positions],
            failures=[],
        )

    def keys_of(self, positions: Sequence[int]) -> list[str]:
        """Keys of some of the images, which are known by now."""
        return cast("list[str]", [self.keys[i] for i in positions])

    def unchanged(self, positions: Sequence[int]) -> list[bool]:
        """Whether the file of each image is still the one that its key was taken of."""
        now = file_signatures(self.images, positions)
        return [s == self.signatures[i] for s, i in zip(now, positions, strict=True)]

    def missing(self, positions: Sequence[int]) -> Missing:
        """Group images by the taps whose rows the store lacks; of equal images, the first."""
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
    """Find the shelves of a recipe's rows, and the keys of images that need no file to be opened.

    Parameters
    ----------
    images : ImageCollection
        The images.
    recipe : Recipe
        What a row is.
    settings : Settings
        How it is computed.
    store : FeatureStore
        Where it is kept.
    """
    shelves = [
        _Shelf(tap, store.rows(recipe.digest(tap), recipe.describe(tap))) for tap in recipe.taps
    ]
    # Before the keys: what changes from here on is noticed.
    signatures = file_signatures(images, range(len(images)))
    keys, failures = known_keys(images, store, signatures, settings.on_error)
    return CachedRows(images, keys, signatures, failures, recipe, settings, store, shelves)
