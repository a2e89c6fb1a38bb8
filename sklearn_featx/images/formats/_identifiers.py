"""Identifiers in DICOM headers: who and which examination an image belongs to.

One element is read, and no pixels. Errors never quote its value.
"""

import warnings
from io import BytesIO
from typing import Any

from ..._messages import cause, shown, silenced
from ..._optional import import_optional
from ..._parallel import ForkSafeLock
from ...exceptions import ImageError, InputError
from ._dicom import is_dicom

# Enough of a file to recognize its format.
_START = 132
_QUIET = ForkSafeLock()


def check_identifier(keyword: str) -> None:
    """Raise `InputError` if no element of DICOM has this keyword."""
    if _pydicom("datadict").tag_for_keyword(keyword) is None:
        raise InputError(
            f"by={shown(keyword)} is no keyword of DICOM, such as 'PatientID', which is what "
            f"a word of letters and digits names. As a regular expression, write '({keyword})'."
        )


def read_identifier(source: str | bytes, keyword: str) -> str:
    """Read one element of a DICOM header as text.

    Parameters
    ----------
    source : str or bytes
        A path, or the content of a file.
    keyword : str
        Name of the element, for instance ``"PatientID"``.

    Returns
    -------
    value : str
        The value, which is not empty.

    Raises
    ------
    ImageError
        If the file is no DICOM, cannot be read or has no such value.
    MissingDependencyError
        If pydicom is not installed.
    """
    path = None if isinstance(source, bytes) else source
    if not is_dicom(_start(source)):
        raise ImageError(f"is no DICOM file, so it has no {keyword}.", path=path)
    value = str(_read(source, keyword, path)).strip(" \0")
    if not value:
        raise ImageError(
            f"has no {keyword} in its header. Pass a function, or a regular expression on the "
            "path, as `by`.",
            path=path,
        )
    return value


def holds_identifiers(source: str | bytes) -> bool:
    """Whether a file is DICOM, by its first bytes; False if it cannot be read."""
    try:
        return is_dicom(_start(source))
    except ImageError:
        return False


def _start(source: str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:_START]
    try:
        with open(source, "rb") as file:  # noqa: PTH123 (a path may be of any file system)
            return file.read(_START)
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {cause(error)}", path=source) from error


def _read(source: str | bytes, keyword: str, path: str | None) -> Any:
    pydicom = _pydicom()
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        # pydicom's warnings and logs quote invalid values.
        with _QUIET, warnings.catch_warnings(), silenced("pydicom"):
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=[keyword]
            )
            value = header.get(keyword)
    except Exception as error:
        # Damaged headers raise errors of any type; their messages may quote values.
        reason = f"its DICOM header cannot be read ({type(error).__name__})."
        raise ImageError(reason, path=path) from None
    return "" if value is None else value


def _pydicom(module: str = "") -> Any:
    name = f"pydicom.{module}" if module else "pydicom"
    return import_optional(name, extra="dicom", purpose="Reading identifiers of DICOM files")
