"""Libraries: code that is identified by its name and version, without reading it."""

import functools
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from .._digest import digest, version_of

OWN_PACKAGE = __name__.partition(".")[0]
# Mostly compiled and too large to read, wherever they are installed.
_ALWAYS = {"torch", "torchvision", "numpy"}
# Libraries whose version changes with every change of their code.
_KNOWN = {*_ALWAYS, "timm"}
# Folders that packages are installed into.
_INSTALLED = ("site-packages", "dist-packages")


@functools.cache
def is_library(module: str | None) -> bool:
    """Whether a module belongs to Python, to an installed distribution or to this package.

    Other modules (a script, a notebook, a repository on the path) may change under their name.
    """
    root = (module or "").partition(".")[0]
    if root in _ALWAYS or root == OWN_PACKAGE or root in sys.builtin_module_names:
        return True
    return bool(root) and root != "__main__" and (_in_python(root) or _in_distribution(root))


def versions(roots: Iterable[str]) -> list[str]:
    """Return names and versions of libraries, with a digest of the files of less known ones.

    Parameters
    ----------
    roots : iterable of str
        Names of top-level modules. Modules of Python, of this package and of users are skipped.
    """
    return [
        f"{root} {version_of(root) if root in _KNOWN else _version(root)}"
        for root in sorted(set(roots))
        if is_library(root) and root != OWN_PACKAGE and not _in_python(root)
    ]


@functools.cache
def _version(root: str) -> str:
    name = (_distributions().get(root) or [root])[0]
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    # A package under development is installed repeatedly with the same version.
    record = (found.read_text("RECORD") or "").splitlines()
    code = sorted(line for line in record if ".py," in line or ".so," in line or ".pyd," in line)
    return f"{found.version} {digest(*code)}"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _in_python(root: str) -> bool:
    if root not in sys.stdlib_module_names:
        return False
    # A user's script may have the name of a Python module.
    place = _place(root)
    if place is None:
        return True
    python = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return any(folder in place.parents for folder in python)


@functools.cache
def _in_distribution(root: str) -> bool:
    place = _place(root)
    if place is None or not any(part in _INSTALLED for part in place.parts):
        return False
    return root in _KNOWN or root in _distributions()


def _place(root: str) -> Path | None:
    """Return the file of a top-level module; None if it is built into Python."""
    origin = getattr(sys.modules.get(root), "__file__", None)
    if origin is None:
        try:
            spec = importlib.util.find_spec(root)
        except (ImportError, ValueError):
            spec = None
        origin = None if spec is None else spec.origin
    return Path(origin) if origin not in (None, "built-in", "frozen") else None
