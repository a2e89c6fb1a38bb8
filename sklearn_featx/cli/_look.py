"""The command ``sklearn-featx look``: what a saved model says about a folder of images, as a page.

A file of skops says which types it holds before anything is built. A pickle can run any code while
it is loaded, so it is loaded only with ``--trust-pickle``.
"""

import argparse
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from .._messages import cause, shown
from .._optional import import_optional
from ..exceptions import FeatxError, ImageWarning, InputError, UnsuitableModelError
from ._empty import some_path
from ._exit_codes import SOME_UNREADABLE
from ._folder import find_images
from ._lines import in_utf_8, write_line
from ._output import check_output, write_whole

# Types of this package; skops knows those of scikit-learn and NumPy that only hold data.
_TRUSTED = frozenset(
    f"sklearn_featx.{place}"
    for place in (
        "estimators._extractor.PretrainedFeatureExtractor",
        "estimators._finetune_classifier.FineTuneClassifier",
        "estimators._finetune_regressor.FineTuneRegressor",
        "estimators._image_reader.ImageReader",
        "estimators._preprocessing.Preprocessing",
        "training._callbacks.GradualUnfreezing",
    )
)
_READER = re.compile(r"ImageReader\((?:[^()]|\([^()]*\))*\)")
_PICKLES = (".joblib", ".pkl", ".pickle")


def _look(arguments: argparse.Namespace) -> int:
    if arguments.output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output: {shown(str(arguments.output))} must end in .html.")
    check_output(arguments.output)
    # Here, since other commands need neither it nor what it imports.
    from ..inspection import report_page

    model = load_model(arguments.model, trust_pickle=arguments.trust_pickle)
    quiet = arguments.quiet
    paths = _images(arguments.folder, quiet, "FOLDER")
    known = None if arguments.known is None else _images(arguments.known, quiet, "--known")
    with _noted() as caught:
        try:
            page = in_utf_8(report_page(model, paths, known, arguments.neighbors))
        except UnsuitableModelError as error:
            raise InputError(f"MODEL: {error}") from error

    def write(file: IO[bytes]) -> None:
        file.write(page.encode("utf-8"))

    write_whole(arguments.output, write)
    # The page has images without a prediction, or none of their neighbors among --known.
    unreadable = any(issubclass(warning.category, ImageWarning) for warning in caught)
    return SOME_UNREADABLE if unreadable else 0


@contextmanager
def _noted() -> Iterator[list[warnings.WarningMessage]]:
    """Context manager: a block whose warnings are given at its end, and its list of them."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ImageWarning)
            yield caught
    finally:
        for note in caught:
            warnings.warn_explicit(note.message, note.category, note.filename, note.lineno)


def _in_words(text: str) -> str:
    """Return a message in the words of the command, whose reader is a part of the model."""
    return _READER.sub(r"\g<0> in the model", text)


def load_model(path: Path, *, trust_pickle: bool = False) -> Any:
    """Load a saved model.

    Parameters
    ----------
    path : Path
        A file of skops, or of joblib.
    trust_pickle : bool, default=False
        Whether a pickle may be loaded, which can run any code.

    Returns
    -------
    model : estimator
        The model.

    Raises
    ------
    InputError
        If the file does not exist, has another suffix, is a pickle without `trust_pickle`, or holds
        types of other packages.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"MODEL: there is no file {shown(str(path))}.")
    if suffix in _PICKLES:
        if not trust_pickle:
            raise InputError(
                f"MODEL: {shown(str(path))} is a pickle, which can run any code when it is loaded. "
                "Save the model with skops.io.dump; or pass --trust-pickle if you made the file."
            )
        import joblib

        return _loaded(path, joblib.load)
    if suffix != ".skops":
        raise InputError(f"MODEL: {shown(str(path))} must end in .skops or .joblib.")
    skops = import_optional("skops.io", extra="skops", purpose="look")
    types = _loaded(path, lambda file: skops.get_untrusted_types(file=file))
    foreign = [name for name in types if name not in _TRUSTED]
    if foreign:
        raise InputError(
            f"MODEL: {shown(str(path))} holds types of other packages: {shown(foreign)}. Load it "
            "in Python with skops.io.load and the types that you trust."
        )
    return _loaded(path, partial(skops.load, trusted=types))


def _loaded(path: Path, load: Callable[[Path], Any]) -> Any:
    try:
        return load(path)
    except FeatxError as error:
        raise InputError(f"MODEL: {shown(str(path))}: {error}") from error
    except Exception as error:
        # A damaged file raises errors of any type.
        raise InputError(
            f"MODEL: {shown(str(path))} cannot be loaded ({cause(error)}). Save the model again."
        ) from error


def _images(folder: Path, quiet: bool, argument: str) -> list[str]:
    paths, skipped = find_images(folder, argument=argument)
    if skipped and not quiet:
        write_line(f"skipped: {skipped}")
    return [str(folder / path) for path in paths]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{shown(text)} is no number from 0")
    return int(text)


def add_look(commands: Any) -> None:
    look = commands.add_parser(
        "look", help="write a page with the predictions of a saved model, heat maps and neighbors"
    )
    look.add_argument("model", metavar="MODEL", type=some_path, help="a .skops file, or .joblib")
    look.add_argument("folder", metavar="FOLDER", type=some_path, help="images")
    look.add_argument("-o", "--output", type=some_path, required=True, help="the page, .html")
    look.add_argument(
        "--known", metavar="FOLDER", type=some_path, default=None,
        help="images to find neighbors among, such as those of the training; default: the others",
    )  # fmt: skip
    look.add_argument(
        "--neighbors", type=_count, default=5, metavar="N",
        help="nearest images beside each one; default: %(default)s",
    )  # fmt: skip
    look.add_argument(
        "--trust-pickle", action="store_true",
        help="load a .joblib file, which can run any code; only if you made it",
    )  # fmt: skip
    look.add_argument("-q", "--quiet", action="store_true", help="no note of skipped files")
    look.set_defaults(run=_look, wording=_in_words)
