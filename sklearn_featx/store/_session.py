"""The session store: a temporary store of a process and its workers, deleted at exit.

Workers find it by an inherited environment variable or by a pickled handle. The process that
created it deletes it at exit. The store of a killed process is deleted by the next session that
starts on this host. The folder's name identifies the owner::

    sklearn-featx-session-<user>-<pid.start.namespace>-<max bytes>-<random>

Only folders with such a name that belong to this user and whose process has certainly ended are
deleted.
"""

import atexit
import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

from ._process import is_alive, process_token
from ._store import MIN_SIZE, FeatureStore

_VARIABLE = "SKLEARN_FEATX_SESSION"
_MAX_BYTES = 10 * 1000**3
_NAME = re.compile(
    r"sklearn-featx-session-(?P<user>\d+)-(?P<owner>\d+\.\d+\.\d+)-(?P<size>\d+)-\w+"
)


class SessionStore(FeatureStore):
    """The handle of a session's store. A deleted folder is not created again."""

    _create_folder = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _arrive, (self.path, self.max_size, self.storage)


def session_store() -> FeatureStore:
    """Return the temporary store of this process and its workers.

    Its maximum size is the smaller of 10 GB and half of the free disk space. It is deleted when the
    process that created it exits.

    Returns
    -------
    store : FeatureStore
        The same store in every call of this process and its worker processes.

    Examples
    --------
    >>> from sklearn_featx.store import session_store
    >>> session_store().path == session_store().path
    True
    """
    with _LOCK:
        folder = Path(os.environ.get(_VARIABLE, ""))
        if not _is_session(folder):
            sweep(Path(tempfile.gettempdir()))
            folder = _make_folder()
        return SessionStore(folder, _size_in_name(folder))


def sweep(parent: Path) -> None:
    """Delete the folders of sessions whose process has ended.

    Parameters
    ----------
    parent : Path
        The folder that contains the sessions' folders.
    """
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            match = _NAME.fullmatch(folder.name)
            if match and _is_session(folder) and not is_alive(match["owner"]):
                _delete(folder)


def _make_folder() -> Path:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    max_bytes = max(MIN_SIZE, min(_MAX_BYTES, free // 2))
    prefix = f"sklearn-featx-session-{_user()}-{process_token()}-{max_bytes}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    os.environ[_VARIABLE] = str(folder)
    atexit.register(_end, folder, os.getpid())
    return folder


def _end(folder: Path, owner: int) -> None:
    # A forked child also runs its parent's exit functions.
    if os.getpid() == owner and _is_session(folder):
        SessionStore(folder, _size_in_name(folder)).close()
        _delete(folder)


def _delete(folder: Path) -> None:
    """Rename and delete a folder, so that no worker writes into it in the meantime."""
    doomed = folder.with_name(f"{folder.name}_")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _is_session(folder: Path) -> bool:
    match = _NAME.fullmatch(folder.name)
    if match is None or int(match["user"]) != _user():
        return False
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == _user()


def _size_in_name(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    assert match is not None
    return int(match["size"])


def _user() -> int:
    # Windows has no user ids; st_uid is 0 for every file.
    return os.getuid() if hasattr(os, "getuid") else 0


def _arrive(*address: Any) -> SessionStore:
    """Create a handle in a worker; from now on, its `session_store()` is the sender's."""
    store = SessionStore(*address)
    folder = Path(store.path)
    if not _is_session(Path(os.environ.get(_VARIABLE, ""))) and _is_session(folder):
        os.environ[_VARIABLE] = store.path
    return store


def _renew_lock() -> None:
    # The fork may have copied a locked lock.
    global _LOCK
    _LOCK = threading.Lock()


_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
