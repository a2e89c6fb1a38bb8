"""Related images: those that cross-validation should keep together, and the folds that do not.

Related are copies of one image, near copies of it, slices or tiles of one file, images of one
patient by the headers of DICOM files (of one examination, if they name no patient), and the groups
that the user gives.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..exceptions import ImageError, MissingDependencyError
from ..images import (
    Bags,
    ImageCollection,
    RemoteItem,
    Source,
    has_scan_name,
    holds_identifiers,
    is_missing,
    read_identifier,
)
from ._image_groups import Groups, numbered
from ._near_copies import HASH_SIDE, LEAST_CORRELATION, near_copies, perceptual_hashes
from ._sources import distinct, fetched_ahead, file_of


class Relation(NamedTuple):
    """A reason why images belong together.

    Parameters
    ----------
    name : str
        Name of the groups in messages, in the plural.
    groups : ndarray of shape (n_images,), int
        Equal where images belong together.
    """

    name: str
    groups: Groups


def copies(sources: Sequence[Sequence[str]]) -> Relation:
    """Relate rows of X whose images all have the same content.

    Parameters
    ----------
    sources : sequence of sequence of str
        For each input, a column for instance, the digest of each image.
    """
    return Relation("images with copies", numbered(list(zip(*sources, strict=True))))


def look_alikes(inputs: Sequence[ImageCollection], content: Groups, n_jobs: int | None) -> Relation:
    """Relate rows of X whose images are all near copies of each other.

    Parameters
    ----------
    inputs : sequence of ImageCollection
        The images of each input; those of plain numbers do not count.
    content : ndarray of shape (n_images,), int
        Equal where rows are copies: one of them is read.
    n_jobs : int or None
        Number of threads that read.
    """
    first = np.unique(content, return_index=True)[1]
    alike: set[tuple[int, int]] | None = None
    for images in inputs:
        if images.kind == "pixels":
            found = _alike(images.take(first), n_jobs)
            alike = found if alike is None else alike & found
    of_content = _joined(len(first), alike or ())
    # Copies of one image that is like no other are not near copies.
    alone = np.bincount(of_content)[of_content] == 1
    groups = np.where(alone[content], len(first) + np.arange(len(content)), of_content[content])
    name = (
        f"images with near copies ({HASH_SIDE} x {HASH_SIDE} gray pixels that correlate by at "
        f"least {LEAST_CORRELATION})"
    )
    return Relation(name, groups)


def parts(inputs: Sequence[ImageCollection], digests: Sequence[Sequence[str]]) -> Relation:
    """Relate rows of X that show parts of one file: slices of a volume, tiles of a slide.

    Parameters
    ----------
    inputs : sequence of ImageCollection
        The images of each input.
    digests : sequence of sequence of str
        For each input, the digest of each image: a file that is several times in X has one.
    """
    pairs: list[tuple[int, int]] = []
    for images, of_rows in zip(inputs, digests, strict=True):
        rows_of: dict[str, list[int]] = {}
        for row in range(len(images)):
            for source in distinct(images.sources(row)):
                path = source.path if isinstance(source, RemoteItem) else source
                if isinstance(path, str):
                    # One file may have several names, relative and absolute.
                    path = path if "://" in path else str(Path(path).absolute())
                    rows_of.setdefault(path, []).append(row)
        for rows in rows_of.values():
            if len({of_rows[row] for row in rows}) > 1:
                pairs += [(rows[0], row) for row in rows]
    return Relation("files whose parts are several images", _joined(len(inputs[0]), pairs))


def patients(inputs: Sequence[ImageCollection], *, fetch: bool) -> Relation | None:
    """Relate rows of X that have an image of one patient, by the headers of DICOM files.

    Parameters
    ----------
    inputs : sequence of ImageCollection
        The images of each input.
    fetch : bool
        Whether to fetch remote files that may be DICOM by their names.

    Returns
    -------
    relation : Relation or None
        None if no file names a patient or an examination.
    """
    first: dict[tuple[str, str] | None, int] = {}
    pairs: list[tuple[int, int]] = []

    def is_read(source: Source) -> bool:
        if not isinstance(source, RemoteItem):
            return True
        return fetch and has_scan_name(source.path.partition("?")[0])

    for images in inputs:
        with fetched_ahead(images, is_read):
            for row in range(len(images)):
                # The slices of a volume have one file.
                sources = filter(is_read, distinct(images.sources(row)))
                named = {_patient(source) for source in sources} - {None}
                pairs += [(first.setdefault(patient, row), row) for patient in named]
    if not first:
        return None
    # An examination is of one patient, whose name an anonymizer may have removed.
    by = (
        "PatientID"
        if {keyword for keyword, _ in filter(None, first)} == {"PatientID"}
        else ("PatientID, or StudyInstanceUID where there is none")
    )
    return Relation(f"patients ({by})", _joined(len(inputs[0]), pairs))


def given(groups: Any, n_images: int) -> Relation:
    """Relate rows of X by the groups that the user gives.

    Parameters
    ----------
    groups : array-like of shape (n_images,)
        Numbers or text.
    n_images : int
        Number of rows of X.

    Raises
    ------
    ValueError
        If there is not one value for each row.
    """
    values = np.asarray(groups)
    if values.shape != (n_images,):
        raise ValueError(
            f"groups has shape {values.shape}: expected one value for each of {n_images} images."
        )
    missing = next((row for row, value in enumerate(values.tolist()) if is_missing(value)), None)
    if missing is not None:
        raise ValueError(f"groups: row {missing} has no group. Name one, or drop the row.")
    return Relation("groups", numbered(values.tolist()))


def together(relations: Sequence[Relation]) -> Groups:
    """Join relations: rows are in one group if any relation, or a chain of them, connects them.

    Parameters
    ----------
    relations : sequence of Relation
        At least one.
    """
    pairs: list[tuple[int, int]] = []
    for relation in relations:
        first = np.unique(relation.groups, return_index=True)[1]
        pairs += enumerate(first[np.unique(relation.groups, return_inverse=True)[1]].tolist())
    return _joined(len(relations[0].groups), pairs)


def separated(groups: Groups, folds: Iterable[tuple[Any, Any]]) -> set[int]:
    """Return the groups that some fold has in training and test at once.

    Parameters
    ----------
    groups : ndarray of shape (n_images,), int
        Equal where images belong together.
    folds : iterable of (train, test)
        Positions of images.
    """
    found: set[int] = set()
    for train, test in folds:
        found |= set(groups[train].tolist()) & set(groups[test].tolist())
    return found


def _alike(rows: ImageCollection, n_jobs: int | None) -> set[tuple[int, int]]:
    """Return the pairs of near copies; of bags, those whose images all are, in their order."""
    if not isinstance(rows, Bags):
        return set(near_copies(perceptual_hashes(rows, n_jobs)))
    hashes = perceptual_hashes(rows.images, n_jobs)
    alike = set(near_copies(hashes))
    # The ends of many volumes are black, and a hash of a single value is like no other.
    plain = set(np.flatnonzero(~hashes.any(axis=1)).tolist())

    def are_alike(one: int, other: int) -> bool:
        members = list(zip(rows.members(one), rows.members(other), strict=False))
        same_size = bool(rows.sizes[one] == rows.sizes[other])
        return same_size and all(pair in alike or plain.issuperset(pair) for pair in members)

    found = {(rows.owner(i), rows.owner(j)) for i, j in alike}
    return {(one, other) for one, other in found if one != other and are_alike(one, other)}


def _patient(source: Source) -> tuple[str, str] | None:
    """Return what names the patient of a file, and its value."""
    # Without the package, and for damaged headers, reading the image will say what is wrong.
    with suppress(ImageError, MissingDependencyError):
        file = file_of(source)
        if file is None or not holds_identifiers(file):
            return None
        for keyword in ("PatientID", "StudyInstanceUID"):
            with suppress(ImageError):
                return keyword, read_identifier(file, keyword)
    return None


def _joined(n_rows: int, pairs: Iterable[tuple[int, int]]) -> Groups:
    """Return the number of the connected component of each row."""
    # int32: SciPy 1.11 finds one single group, without an error, if the indices have 64 bits.
    one, other = np.array([*pairs], dtype=np.int32).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(n_rows, n_rows))
    return numbered(connected_components(graph, directed=False)[1].tolist())
