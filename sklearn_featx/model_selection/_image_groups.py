"""Groups of images: which of them show one patient or come from one examination.

Images of one patient in training and test make scores too high: a model recognizes the patient.
Groups are numbers without a meaning outside of the call, so that no identifier reaches a message,
a cache or a result unless the user asks for it.
"""

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._arguments import check_flag
from .._messages import cause, shown
from .._typing import AnyArray
from ..exceptions import FeatxWarning, ImageError, InputError
from ..images import (
    ImageCollection,
    ReadOptions,
    RemoteItem,
    Source,
    as_image_collection,
    check_identifier,
    is_missing,
    read_identifier,
)
from ._sources import distinct, fetched_ahead, file_of

Groups: TypeAlias = npt.NDArray[np.intp]
By: TypeAlias = str | re.Pattern[str] | Callable[[str], Hashable]
_Read: TypeAlias = Callable[[Source], Hashable]

_NO_FILE = (
    "is no file (an array, an opened picture, a missing entry), and groups are read from files. "
    "Pass paths, or give GroupKFold an array of groups of your own."
)


def image_groups(
    X: Any,
    by: By = "PatientID",
    *,
    raw: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> AnyArray:
    r"""Say which images belong together, for `GroupKFold` and other splitters.

    Parameters
    ----------
    X : array-like, list, Series, DataFrame or Dataset of n_images images
        As in `fit`. An entry may be a list of images of one group.
    by : str, re.Pattern or callable, default="PatientID"
        - A keyword of DICOM, such as ``"PatientID"`` or ``"StudyInstanceUID"``: the value in the
          header of each file. It needs pydicom, ``pip install "sklearn-featx[dicom]"``. Remote
          files are fetched.
        - A regular expression, which is searched in the whole path of each file: the capture groups
          of its first match, as in ``r"patient_(\d+)"``, or the whole match. A word of letters and
          digits alone is taken for a keyword: write ``"(word)"``, or pass an `re.Pattern`.
        - A function from the path of a file to any hashable value. The path of a remote file is
          its address without credentials.
    raw : bool, default=False
        Whether to return the values themselves, which may identify persons, as text. False:
        numbers in the order of first appearance, which have no meaning outside of this array.
    storage_options : mapping, default=None
        Options of fsspec for remote files, as in `ImageReader`.

    Returns
    -------
    groups : ndarray of shape (n_images,), int or str
        Equal where images belong together.

    Raises
    ------
    InputError
        If `by` is no keyword, regular expression or function, or `storage_options` no mapping.
    ImageError
        If an image has no such value, or the images of an entry have several. The error has its
        row, and quotes no value.

    Warns
    -----
    FeatxWarning
        If a regular expression puts the images of all files, at least two, in one group.

    See Also
    --------
    plan_search : Warns where images that belong together are in training and test.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn_featx import image_groups
    >>> folder = Path(tempfile.mkdtemp())
    >>> paths = [folder / name for name in ("ann-1.png", "bob-1.png", "ann-2.png")]
    >>> for path in paths:
    ...     Image.new("L", (4, 4)).save(path)
    >>> image_groups(paths, by=r"(\w+)-\d\.png")
    array([0, 1, 0])
    """
    check_flag(raw, "raw")
    _check_storage_options(storage_options)
    values: list[Hashable] = []
    options = ReadOptions(bag_pooling="mean", storage_options=storage_options, has_on_error=False)
    for value in read_groups(X, by, options):
        if isinstance(value, ImageError):
            raise value
        values.append(value)
    if raw:
        return np.array([value if isinstance(value, str) else str(value) for value in values])
    return numbered(values)


def _check_storage_options(options: Any) -> None:
    """Refuse what is no mapping. Its value may be a password, and is not named."""
    if options is not None and not isinstance(options, Mapping):
        kind = type(options).__name__
        raise InputError(f"storage_options is of type {kind}: expected a dict of fsspec's options.")


def read_groups(
    X: Any, by: By, options: ReadOptions, names: Sequence[str | None] | None = None
) -> Iterator[Hashable | ImageError]:
    """Yield the group of each image, or the error of an image without one.

    Warns at the end if a regular expression puts the images of several files in one group.

    Parameters
    ----------
    X, by : object
        As in `image_groups`.
    options : ReadOptions
        How entries of X become images.
    names : sequence of str or None, default=None
        What a regular expression is searched in, in place of the path of an image; None: its path.
    """
    read, of_header = _reader(by), _is_keyword(by)
    of_path = isinstance(by, str | re.Pattern) and not of_header
    images = as_image_collection(X, options)
    files: set[str] = set()
    values: set[Hashable] = set()
    with fetched_ahead(images, lambda source: of_header and isinstance(source, RemoteItem)):
        for row in range(len(images)):
            name = names[row] if of_path and names is not None else None
            try:
                value = _value(images, row, read, name)
            except ImageError as error:
                yield error
                continue
            if of_path:
                files.update(map(_path, images.sources(row)) if name is None else [name])
            values.add(value)
            yield value
    if of_path and len(values) == 1 < len(files):
        _warn_of_one_group(by, len(files))


def _warn_of_one_group(by: Any, n_files: int) -> None:
    """Say that an expression separates nothing: a folder above all images matches first."""
    warnings.warn(
        f"by={shown(re.compile(by).pattern)} puts all {n_files} files in one group: it takes the "
        "first match in the whole path. The folder of each file is r'([^/]+)/[^/]+$'.",
        FeatxWarning,
        stacklevel=4,
    )


def numbered(values: Sequence[Hashable]) -> Groups:
    """Return a number for each value, in the order of first appearance.

    Parameters
    ----------
    values : sequence of hashable
        The values.

    Returns
    -------
    groups : ndarray of shape (n,), int
        Equal where the values are.
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.intp)


def _reader(by: Any) -> _Read:
    """Return the function that reads the value of a file, or of its content."""
    if callable(by):
        return lambda source: _called(by, _path(source))
    if _is_keyword(by):
        check_identifier(by)
        return lambda source: _identifier(source, by)
    if isinstance(by, str | re.Pattern):
        pattern = _compiled(by)
        return lambda source: _found(pattern, _path(source))
    raise InputError(
        f"by={shown(by)}: expected a keyword of DICOM such as 'PatientID', a regular expression or "
        "a function from a path to a group."
    )


def _is_keyword(by: Any) -> bool:
    return isinstance(by, str) and re.fullmatch("[A-Za-z0-9]+", by) is not None


def _identifier(source: Source, keyword: str) -> str:
    file = file_of(source)
    if file is None:
        raise ImageError(_NO_FILE)
    return read_identifier(file, keyword)


def _compiled(by: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(by)
    except re.error as error:
        raise InputError(f"by={shown(by)} is no regular expression: {cause(error)}.") from error


def _found(pattern: re.Pattern[str], path: str) -> Hashable:
    match = pattern.search(path)
    if match is None:
        raise ImageError(f"the path does not match by={shown(pattern.pattern)}.", path=path)
    parts = match.groups() or (match[0],)
    if not any(map(_is_named, parts)):
        # An optional group that is missing is no name that images share.
        reason = f"the path matches by={shown(pattern.pattern)} without a group in it."
        raise ImageError(reason, path=path)
    return parts[0] if len(parts) == 1 else parts


def _called(function: Callable[[str], Hashable], path: str) -> Hashable:
    try:
        value = function(path)
        hash(value)
    except Exception as error:
        # The message of the error may quote an identifier.
        reason = f"by raised {type(error).__name__}: expected a function from a path to a group."
        raise ImageError(reason, path=path) from error
    if not _is_named(value):
        raise ImageError(f"by returned {shown(value)} for this path: no group.", path=path)
    return value


def _is_named(value: Any) -> bool:
    """Whether a value names a group: a missing value and blank text name none."""
    if isinstance(value, str):
        return bool(value.strip())
    return not is_missing(value) and bool(value == value)


def _path(source: Source) -> str:
    if isinstance(source, bytes):
        raise ImageError("has no path for `by`. Pass paths, or a keyword of DICOM.")
    if source is None:
        raise ImageError(_NO_FILE)
    return source.path if isinstance(source, RemoteItem) else source


def _value(images: ImageCollection, row: int, read: _Read, name: str | None = None) -> Hashable:
    """Value of one image, or of its name; the errors have its row."""
    try:
        if name is not None:
            return read(name)
        values = {read(source) for source in distinct(images.sources(row))}
        if len(values) > 1:
            raise ImageError(f"has images of {len(values)} groups.")
        return values.pop()
    except ImageError as error:
        # A name may be an address with credentials; the path of an image has none.
        path = error.path if name is None else _file_name(images, row)
        raise ImageError(error.reason, row, path or images.path(row)) from error.__cause__


def _file_name(images: ImageCollection, row: int) -> str | None:
    """Return the path of the first file of an image; None if it has none."""
    source = next(iter(images.sources(row)), None)
    return source.path if isinstance(source, RemoteItem) else None
