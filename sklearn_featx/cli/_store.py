"""The command ``sklearn-featx store PATH info | verify | prune | clear``.

The command never creates a store, and a store that cannot be used is an error. `FeatureStore` does
the work.
"""

import argparse
import warnings
from typing import Any

from ..exceptions import StoreError, StoreWarning
from ..store import FeatureStore
from ._empty import some_path
from ._lines import print_text

# Larger than any disk: `prune` deletes no rows and only frees unused space.
_NO_LIMIT = "1000TB"


def add_store(commands: Any) -> None:
    """Add the command to a parser.

    Parameters
    ----------
    commands : argparse subparsers action
        The subparsers.
    """
    store = commands.add_parser(
        "store",
        help="inspect, check, shrink or empty a folder of cached features",
        description="Manage the cached features of this host in a folder.",
    )
    store.add_argument("path", type=some_path, metavar="PATH", help="the folder given as --cache")
    actions = store.add_subparsers(required=True, metavar="ACTION")
    for name, action, text in (
        ("info", _info, "show its content"),
        ("verify", _verify, "check every row and remove damaged ones"),
        ("prune", _prune, "free unused disk space"),
        ("clear", _clear, "delete all rows; other files in the folder stay"),
    ):
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=_run, action=action)
        if name == "prune":
            added.add_argument(
                "--max-size",
                metavar="SIZE",
                default=_NO_LIMIT,
                help="delete the least recently used rows until the store has this size, such as "
                "500MB; by default, no row is deleted",
            )


def size_in_words(n_bytes: int) -> str:
    """Format a number of bytes in the largest unit that gives at least 1.

    Parameters
    ----------
    n_bytes : int
        The size.

    Returns
    -------
    text : str
        The size in powers of 1000, a valid `max_size` of `FeatureStore`.
    """
    size, units = float(n_bytes), ["B", "KB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _run(arguments: argparse.Namespace) -> None:
    path, action = arguments.path, arguments.action
    with warnings.catch_warnings(record=True) as caught, FeatureStore(path) as store:
        warnings.simplefilter("always", StoreWarning)
        found = store.info().n_bytes > 0
        text = action(store, arguments) if found else ""
    failures = [str(w.message) for w in caught if issubclass(w.category, StoreWarning)]
    if failures:
        raise StoreError(f"PATH: {failures[0]}")
    if not found:
        raise StoreError(f"PATH: this host has no store in {str(path)!r}.")
    print_text(text)


def _info(store: FeatureStore, _: argparse.Namespace) -> str:
    info = store.info()
    lines = [
        f"{info.n_rows:,} rows, {size_in_words(info.n_bytes)}",
        f"{info.n_files:,} files with known content",
    ]
    recipes = sorted(info.recipes.items(), key=lambda recipe: -recipe[1])
    return "\n".join([*lines, *(f"{n_rows:>10,}  {recipe}" for recipe, n_rows in recipes)])


def _verify(store: FeatureStore, _: argparse.Namespace) -> str:
    checked = store.verify()
    text = f"{checked.n_rows:,} rows checked, {checked.n_removed:,} damaged records removed"
    return f"{text}; the file was damaged and is rebuilt" if checked.rebuilt else text


def _prune(store: FeatureStore, arguments: argparse.Namespace) -> str:
    n_deleted = store.prune(arguments.max_size)
    return f"{n_deleted:,} rows deleted, {size_in_words(store.info().n_bytes)} remain"


def _clear(store: FeatureStore, _: argparse.Namespace) -> str:
    n_rows = store.info().n_rows
    store.clear()
    return f"{n_rows:,} rows deleted"
