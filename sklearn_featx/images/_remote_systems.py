"""Systems of fsspec: one for a server, or for an archive, opened for the files of one X.

They are not shared with the user's own: those may have listed a folder before a file changed.
"""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any

from .._messages import said, shown
from .._optional import import_optional
from ..exceptions import ImageError, MissingDependencyError
from ._addresses import Address, scheme_of

_ARCHIVES = ("zip", "tar", "libarchive")
# Options of one scheme hold for the others of its line.
_SAME = (("http", "https"), ("s3", "s3a"), ("gs", "gcs"))
# Packages of the extra `remote`; other schemes have the packages that fsspec names.
_OURS = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_CONNECT_SECONDS, _READ_SECONDS = 10, 30
# The limit for one file: some servers send without an end.
_TOTAL_SECONDS = 300
# As many as threads that read ahead, so that slow files do not hold up the others.
_CONNECTIONS = 32


class RedirectError(OSError):
    """A server redirects to another host."""


class System:
    """A file system of fsspec, used by several threads.

    Parameters
    ----------
    files : fsspec.AbstractFileSystem
        The file system.
    scheme : str
        Its scheme.
    """

    def __init__(self, files: Any, scheme: str) -> None:
        self._files = files
        self._scheme = scheme
        # Files of an archive share one position in it.
        self._turn = threading.Lock() if scheme in _ARCHIVES else nullcontext()

    def read(self, address: Address, most: int) -> bytes:
        """Return the content of a file, or its first bytes.

        Parameters
        ----------
        address : Address
            The file.
        most : int
            Largest number of bytes.
        """
        link = _file(address)
        if self._scheme in ("http", "https"):
            return self._streamed(link, most)
        with self._turn:
            return bytes(self._files.cat_file(link, start=0, end=most))

    def info(self, address: Address) -> dict[str, Any]:
        """Return what the server says of a file, without fetching it."""
        with self._turn:
            return dict(self._files.info(_file(address)))

    def find(self, address: Address) -> dict[str, str]:
        """Return the addresses of the files below an address, by their paths below it."""
        link, *containers = address.links
        # The paths of a system lack what is before its root, such as a host or a drive.
        base = str(self._files._strip_protocol(link))
        with self._turn:
            # Before fsspec 2026.9, an archive finds nothing below "zip://".
            paths = [str(path) for path in self._files.find(base)]
        scheme, _, place = link.partition("://")
        root = base.strip("/")
        names = [path.removeprefix("/").removeprefix(root).removeprefix("/") for path in paths]
        # A leading slash belongs to the path: file:///photos is not file://photos.
        folder = place.rstrip("/")
        start = f"{scheme}://{folder}" + ("/" if place else "")
        return {
            # The address of a file leads to itself.
            name or root.rpartition("/")[2]: "::".join(
                [f"{start}{name}" if name else f"{scheme}://{folder}", *containers]
            )
            for name in names
            if name or root
        }

    def _streamed(self, link: str, most: int) -> bytes:
        """Read a file in one request, of whatever length."""
        # Any size avoids a request for it; a block size of 0 asks for a stream.
        with self._files.open(link, "rb", block_size=0, size=1) as file:
            parts = []
            while most > 0 and (part := file.read(most)):
                parts.append(part)
                most -= len(part)
        return b"".join(parts)


def _file(address: Address) -> str:
    """Return the part of an address that names the file: ``simplecache::`` names none."""
    return next((link for link in address.links if "://" in link), address.links[0])


def check_scheme(address: Address) -> None:
    """Check that the scheme of an address is known and its package installed.

    Parameters
    ----------
    address : Address
        The address.

    Raises
    ------
    ImageError
        If its scheme is unknown.
    MissingDependencyError
        If the package of its scheme is not installed.
    """
    for link in address.links:
        scheme = scheme_of(link)
        if not _is_known(scheme):
            raise ImageError(
                f"the scheme {shown(scheme)} is unknown. Schemes are s3, gs, https, zip, tar, "
                "memory and others of fsspec; a local file needs none.",
                path=str(address),
            )


@cache
def _is_known(scheme: str) -> bool:
    fsspec = import_optional("fsspec", extra="remote", purpose="An address of a remote file")
    if scheme in _OURS:
        import_optional(_OURS[scheme], extra="remote", purpose=f"An address with {scheme}://")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingDependencyError(f"{scheme}:// cannot be read: {said(error)}") from error
    except ValueError:
        return False
    return True


def merged_options(address: Address, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the storage options of each part of an address, by scheme.

    Parameters
    ----------
    address : Address
        The address; its own options are those of the file.
    options : mapping or None
        Options of all servers, or mappings of them by scheme.
    """
    schemes = [scheme_of(link) for link in address.links]
    by_scheme = {k: v for k, v in (options or {}).items() if isinstance(v, Mapping) and _names(k)}
    flat = {k: v for k, v in (options or {}).items() if k not in by_scheme}
    merged: dict[str, Any] = {}
    for scheme in schemes:
        line = next((line for line in _SAME if scheme in line), (scheme,))
        merged[scheme] = dict(next((by_scheme[s] for s in line if s in by_scheme), {}))
    if schemes[-1] not in ("file", "memory"):
        merged[schemes[-1]].update(flat)
    own = dict(address.options or {})
    if len(schemes) > 1:
        # A UPath repeats its chain in these three options, and fsspec refuses them twice.
        merged[schemes[1]].update(own.pop("target_options", None) or {})
        own = {k: v for k, v in own.items() if k not in ("fo", "target_protocol")}
    merged[schemes[0]].update(own)
    return merged


def _names(key: str) -> bool:
    fsspec = import_optional("fsspec", extra="remote", purpose="storage_options")
    return key in fsspec.available_protocols()


def open_system(address: Address, options: Mapping[str, Any]) -> System:
    """Open the server or the archive of an address.

    Parameters
    ----------
    address : Address
        The address.
    options : mapping
        Options of each of its parts, by scheme.
    """
    core = import_optional("fsspec.core", extra="remote", purpose="An address of a remote file")
    own = {scheme: _own_options(scheme, given) for scheme, given in options.items()}
    files, _ = core.url_to_fs(address.url, **own)
    if address.scheme in ("s3", "s3a") and "config_kwargs" not in options[address.scheme]:
        # botocore has repeated a request already.
        files.retries = 1
    return System(files, address.scheme)


def _own_options(scheme: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in ("http", "https"):
        options["client_kwargs"] = _client(given) | dict(given.get("client_kwargs", {}))
        return options | {k: v for k, v in given.items() if k != "client_kwargs"}
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = {
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"max_attempts": 2},
            "max_pool_connections": _CONNECTIONS,
        }
    return options | dict(given)


def _client(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of aiohttp: limits of time, and no redirect to another host."""
    aiohttp = import_optional("aiohttp", extra="remote", purpose="An address with https://")
    timeout = aiohttp.ClientTimeout(
        total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS
    )
    if "allow_redirects" in given:
        return {"timeout": timeout}
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_another_host)
    return {"timeout": timeout, "trace_configs": [trace]}


async def _refuse_another_host(_: Any, __: Any, redirect: Any) -> None:
    target = redirect.response.headers.get("Location", "")
    to = redirect.url.join(type(redirect.url)(target))
    if to.host != redirect.url.host:
        redirect.response.close()
        raise RedirectError(
            f"the server redirects to another host, {to.host}. Pass that address, or allow it: "
            'ImageReader(storage_options={"https": {"allow_redirects": True}}).'
        )
