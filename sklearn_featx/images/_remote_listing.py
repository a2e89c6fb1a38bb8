"""Names of the files below an address, for the command line; an X is never listed."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from .._messages import shown
from ..exceptions import ImageError, InputError
from ._addresses import Address
from ._remote import Remote
from ._remote_systems import check_scheme
from .formats import START, starts_as_scan

_WITHOUT_LISTING = ("http", "https")


def remote_listing(url: str, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """List the files of a bucket's folder or of an archive.

    Parameters
    ----------
    url : str
        ``s3://bucket/folder``, or ``zip://::path`` for an archive.
    options : mapping, default=None
        Storage options of fsspec.

    Returns
    -------
    addresses : dict of str to str
        Address of each file, by its path below `url`, sorted by path.

    Raises
    ------
    InputError
        If the scheme is unknown, has no listing, or `url` leads to nothing.
    MissingDependencyError
        If the package of the scheme is not installed.
    """
    address = Address(url)
    if address.scheme in _WITHOUT_LISTING:
        raise InputError(
            f"{shown(str(address))}: a web server lists no files. Pass their addresses as lines."
        )
    try:
        check_scheme(address)
        paths = Remote(options).find(address)
    except ImageError as error:
        raise InputError(f"{shown(str(address))}: {error.reason}") from None
    return dict(sorted(paths.items()))


def are_remote_scans(
    urls: Sequence[str], options: Mapping[str, Any] | None = None
) -> list[bool | None]:
    """Return whether each file is a scan, by its first bytes; None if they cannot be read.

    Parameters
    ----------
    urls : sequence of str
        Addresses of a listing.
    options : mapping, default=None
        Storage options of fsspec.
    """
    if not urls:
        return []
    starts = Remote(options).starts([Address(url) for url in urls], START)
    names = [PurePosixPath(url.partition("::")[0]).name for url in urls]
    return [
        None if start is None else starts_as_scan(name, start)
        for name, start in zip(names, starts, strict=True)
    ]
