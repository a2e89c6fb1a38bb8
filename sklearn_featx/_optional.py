"""Import of optional packages, with an error that names the extra to install."""

import importlib
from types import ModuleType

from .exceptions import MissingDependencyError


def import_optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Parameters
    ----------
    name : str
        Module to import.
    extra : str
        The extra of this package that installs it.
    purpose : str
        The purpose of the package, as the subject of a sentence.

    Returns
    -------
    module : ModuleType
        The imported module.

    Raises
    ------
    MissingDependencyError
        If the module is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        # Where this package is installed, the command adds the extra, from any folder: pip asks no
        # index for a package that it has.
        raise MissingDependencyError(
            f"{purpose} needs the package {name.split('.')[0]!r}, which is not installed. "
            f'Install it with: pip install "sklearn-featx[{extra}]"',
            name=error.name,
        ) from error
