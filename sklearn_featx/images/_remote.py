"""Remote files: read by fsspec, ahead of their use, each with the state that its server names.

Only files that X names are fetched: one request of each, and with a cache one for its state before.
No folder is listed, and a redirect to another host is refused. A file that cannot be fetched is an
`ImageError` with its address; addresses in messages have no user, password or query.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from .._digest import digest, stat_signature
from .._messages import cause, short
from .._parallel import ForkSafeLock, in_threads
from ..exceptions import ImageError
from ._addresses import Address, local_path, scheme_of, without_credentials
from ._read_ahead import ReadAhead
from ._remote_systems import RedirectError, System, merged_options, open_system

# Larger than any image that Pillow reads by default: 89 million pixels of 64 bits.
_MOST_BYTES = 2**30
_THREADS = 32
# fsspec names the validators of a file as its server does.
_VALIDATORS = ("ETag", "etag", "md5Hash", "generation", "Content-MD5")

# Name in the store, size, modification time, change time and number, as of a local file.
State = tuple[str, int, int, int, int]


class Fetched(NamedTuple):
    """A remote file.

    Parameters
    ----------
    data : bytes
        Its content.
    state : (str, int, int, int, int) or None
        The state that it had before it was read; None where it is not known or not wanted.
    """

    data: bytes
    state: State | None


class Remote:
    """The servers and archives that the addresses of one X lead to.

    It pickles to its options.

    Parameters
    ----------
    options : mapping, default=None
        Storage options of fsspec: of all servers, or by scheme.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = options
        self._lock = ForkSafeLock()
        self._process = os.getpid()
        self._systems: dict[str, System | Exception] = {}
        self._containers: dict[str, State | None] = {}
        self._ahead: list[ReadAhead[Fetched | ImageError]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self._options,)

    def read(self, item: Any, address: Address, *, with_state: bool) -> Fetched:
        """Fetch a file, or take it where it was fetched ahead.

        Parameters
        ----------
        item : object
            The item of a collection that has the address.
        address : Address
            The address.
        with_state : bool
            Whether its state is wanted.
        """
        for ahead in reversed(self._ahead):
            outcome = ahead.take(item)
            if outcome is not None:
                break
        else:
            outcome = self._fetch(address, with_state)
        if isinstance(outcome, ImageError):
            raise ImageError(outcome.reason, path=outcome.path)
        return outcome

    @contextlib.contextmanager
    def reading_ahead(
        self, items: Sequence[tuple[Any, Address]], *, with_state: bool
    ) -> Iterator[None]:
        """Context manager in which threads fetch files ahead of `read`.

        Parameters
        ----------
        items : sequence of (object, Address)
            The items, in the order of their use.
        with_state : bool
            Whether the states of the files are wanted.
        """
        # An archive is read by one thread after the other, fastest in the order of its files.
        in_archives = all(address.scheme in ("zip", "tar") for _, address in items)
        with ReadAhead(
            [item for item, _ in items],
            lambda i: self._fetch(items[i][1], with_state),
            n_threads=1 if in_archives else min(_THREADS, len(items)),
            size=_size,
            in_order=in_archives,
        ) as ahead:
            self._ahead.append(ahead)
            try:
                yield
            finally:
                self._ahead.remove(ahead)

    def states(self, addresses: Sequence[Address]) -> list[State | None]:
        """Ask servers for the states of files, without fetching the files.

        Parameters
        ----------
        addresses : sequence of Address
            The addresses.
        """
        if not addresses:
            return []
        n_threads = min(_THREADS, len(addresses))
        return list(in_threads(self._state, addresses, n_threads, in_flight=2 * n_threads))

    def find(self, address: Address) -> dict[str, str]:
        """List the files below an address: the address of each, by its path below it.

        Parameters
        ----------
        address : Address
            A folder of a bucket, or an archive.

        Raises
        ------
        ImageError
            If it cannot be listed.
        """
        try:
            return self._system(address).find(address)
        except Exception as error:
            # fsspec and the clients of stores raise errors of any type.
            failure = self._failure(address, _reason(error))
        raise failure

    def starts(self, addresses: Sequence[Address], n_bytes: int) -> list[bytes | None]:
        """Fetch the first bytes of files; None for a file that cannot be fetched, or is empty.

        Parameters
        ----------
        addresses : sequence of Address
            The addresses.
        n_bytes : int
            Largest number of bytes of each.
        """

        def start(address: Address) -> bytes | None:
            try:
                return self._system(address).read(address, n_bytes)
            except Exception:
                # Reading the whole file will say what is wrong.
                return None

        n_threads = min(_THREADS, len(addresses))
        return list(in_threads(start, addresses, n_threads, in_flight=2 * n_threads))

    def name(self, address: Address) -> str:
        """Return the name of a file in the store."""
        return address.name(merged_options(address, self._options))

    def _fetch(self, address: Address, with_state: bool) -> Fetched | ImageError:
        """Fetch a file; an error is an outcome too."""
        try:
            # The state comes first: a file that changes in between is read again next time.
            state = self._state(address) if with_state else None
            if state is not None and state[1] > _MOST_BYTES:
                return self._failure(address, _too_large(state[1]))
            data = self._system(address).read(address, _MOST_BYTES + 1)
        except Exception as error:
            # fsspec and the clients of stores raise errors of any type.
            return self._failure(address, _reason(error))
        if len(data) > _MOST_BYTES:
            return self._failure(address, _too_large(None))
        return Fetched(data, state)

    def _failure(self, address: Address, reason: str) -> ImageError:
        reason = without_credentials(reason)
        for secret in _texts(merged_options(address, self._options)):
            reason = reason.replace(secret, "...")
        # Without a cause: the messages of other libraries have the whole address.
        return ImageError(reason, path=str(address))

    def _state(self, address: Address) -> State | None:
        """Return the state of a file; None where its server names none, or does not answer."""
        try:
            if len(address.links) == 1:
                return self._served(address, address)
            if address.scheme not in ("zip", "tar"):
                # A cache of fsspec may give an older file than its server names.
                return None
            self._system(address)
            container = self._containers.get(_container(address))
            return None if container is None else (self.name(address), *container[1:])
        except Exception:
            # Reading the file will say what is wrong.
            return None

    def _served(self, address: Address, of: Address) -> State | None:
        info = self._system(address).info(address)
        validators = [str(info[name]) for name in _VALIDATORS if info.get(name)]
        # A weak validator is equal for files that differ.
        if not validators or validators[0].startswith("W/"):
            return None
        number = int(digest(*validators).rpartition(":")[2][:15], 16)
        return self.name(of), int(info.get("size") or 0), _modified(info), 0, number

    def _system(self, address: Address) -> System:
        """Return the system of an address; an archive is opened once for all of its files."""
        container = _container(address)
        options = merged_options(address, self._options)
        with self._lock:
            if self._process != os.getpid():
                # The threads of fsspec do not exist in a forked child.
                self._systems, self._process = {}, os.getpid()
            if container not in self._systems:
                # The state comes first, so that it is not newer than the content.
                self._containers[container] = self._container_state(address)
                try:
                    self._systems[container] = open_system(address, options)
                except Exception as error:
                    # Kept, so that the other files of the server do not wait for it too.
                    self._systems[container] = error
            system = self._systems[container]
        if isinstance(system, Exception):
            raise system
        return system

    def _container_state(self, address: Address) -> State | None:
        if len(address.links) != 2 or address.scheme not in ("zip", "tar"):
            return None
        inner = address.links[1]
        if scheme_of(inner) != "file":
            return self._state(Address(inner, address.options))
        path = local_path(inner)
        with contextlib.suppress(OSError):
            return (path, *stat_signature(path))
        return None


def _modified(info: Mapping[str, Any]) -> int:
    """Return when a file of a web server was modified, in ns; 0 where it does not say.

    The ETag of a web server may be of a time in seconds: the store records no file that has changed
    within two seconds. That of a bucket is of the content.
    """
    try:
        return int(parsedate_to_datetime(info["Last-Modified"]).timestamp()) * 10**9
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0


def _container(address: Address) -> str:
    """Return the name of the server or archive that several addresses share."""
    return "::".join([address.scheme, *address.links[1:], repr(address.options)])


def _size(outcome: Fetched | ImageError) -> int:
    return 0 if isinstance(outcome, ImageError) else len(outcome.data)


def _too_large(size: int | None) -> str:
    has = "more than" if size is None else f"{size} bytes, more than"
    return f"the file has {has} {_MOST_BYTES} bytes. Download it, and pass its path."


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts among options, which may be secret."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str) and len(value) > 5 and "url" not in str(key):
            yield value


def _reason(error: Exception) -> str:
    """Return why a file cannot be fetched."""
    # aiohttp's errors warn of their `code`; those of gcsfs have no `status`.
    name = "status" if hasattr(error, "status") else "code"
    status = getattr(error, name, None)
    # A ZIP archive raises zipfile's KeyError under old versions of fsspec.
    no_member = isinstance(error, KeyError) and "There is no item named" in str(error)
    if isinstance(error, FileNotFoundError) or status == 404 or no_member:
        return "there is no file at this address."
    if _is_refused(error, status):
        return (
            "the server refuses access. For a public bucket pass "
            'ImageReader(storage_options={"anon": True}), for another one credentials.'
        )
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "the server did not answer in time."
    if type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError"):
        return (
            "there are no credentials. For a public bucket pass "
            'ImageReader(storage_options={"anon": True}).'
        )
    if isinstance(error, RedirectError):
        return str(error)
    if isinstance(status, int):
        return f"the server answered {status} {short(str(getattr(error, 'message', '')))}."
    return f"the file cannot be fetched: {cause(error)}"


def _is_refused(error: Exception, status: Any) -> bool:
    # gcsfs raises an OSError of this text.
    forbidden = str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or status in (401, 403) or forbidden
