"""Parts of files: one slice of a volume or one tile of a slide, read when it is needed.

A part is an entry of X. Its digest covers the content of the file, its place and the versions of
the decoders, so that a cached part need not be read. The content of a file is digested once in a
process while the file does not change.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .._digest import digest, installed_version, may_change_unseen, stat_signature
from .._messages import cause
from .._typing import Levels
from ..exceptions import ImageError, MissingDependencyError
from ._addresses import is_address, without_credentials
from ._options import ReadOptions
from ._recent import Recent
from ._scaling import Note

# Increase it when the same part gives other levels.
_VERSION = 2

_contents: Recent[str] = Recent(10_000)


class Part(ABC):
    """A picture in a file.

    Attributes
    ----------
    path : str
        The file.
    """

    path: str

    @property
    @abstractmethod
    def place(self) -> tuple[str | int | float | None, ...]:
        """All that names the picture within the file."""

    @property
    @abstractmethod
    def packages(self) -> tuple[str, ...]:
        """Distributions that decode it."""

    @property
    def companions(self) -> str:
        """Digest of the other files that the picture is in; empty if there are none."""
        return ""

    @property
    @abstractmethod
    def n_pixels(self) -> int | None:
        """Number of its pixels; None if the file would have to be opened."""

    @abstractmethod
    def levels(self, options: ReadOptions, note: Note | None) -> Levels:
        """Read it as levels (H, W, 1 or 3); raise `ImageError` if that fails."""


@dataclass(frozen=True, slots=True)
class PartItem:
    """A part of a file as an image of a collection."""

    part: Part
    options: ReadOptions
    note: Note | None = field(default=None, compare=False, repr=False)
    # The file is not the picture: a memo of files must not name its digest.
    path: None = None

    def load(self) -> Levels:
        """Read the part."""
        path = self.part.path
        try:
            levels = self.part.levels(self.options, self.note)
            return np.ascontiguousarray(self.options.picked(levels))
        except ImageError as error:
            raise ImageError(error.reason, path=path) from error
        except MissingDependencyError as error:
            raise ImageError(str(error), path=path) from error
        except Exception as error:
            # Decoders raise errors of any type for damaged data.
            raise ImageError(f"cannot be decoded: {cause(error)}", path=path) from error

    def n_channels(self) -> int:
        """Read the part and count its channels."""
        return int(self.part.levels(self.options, None).shape[2])

    def channel(self, number: int) -> "PartItem":
        """Return one channel as an image."""
        return replace(self, options=self.options.of_channel(number))

    def digest(self) -> str:
        """Digest of the files, the place, the options and the decoders."""
        part = self.part
        versions = [f"{name} {installed_version(name)}" for name in part.packages]
        content = content_digest(part.path)
        try:
            whole = ("part", _VERSION, content, part.companions, *part.place, *versions)
        except MissingDependencyError as error:
            raise ImageError(str(error), path=part.path) from error
        return self.options.digest_of(digest(*whole))


def refuse_address(path: str) -> None:
    """Raise `ImageError` if a name is the address of a remote file."""
    if is_address(path):
        raise ImageError(
            "is an address, and slices and tiles are read from local files. Fetch the file first.",
            path=without_credentials(path),
        )


def content_digest(path: str) -> str:
    """Return the digest of a file's content, which is read in blocks.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    try:
        state = stat_signature(path)
        if may_change_unseen(state):
            return _read_digest(path)
        return _contents.get((str(Path(path).absolute()), *state), lambda: _read_digest(path))
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}", path=path) from error


def _read_digest(path: str) -> str:
    with Path(path).open("rb") as file:
        state = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return digest("blocks", state.digest())
