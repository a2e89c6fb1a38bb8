"""Functions from image to image: their digest, if an image always gets the same result.

A function is named as the code of a network is: by its bytecode, closure and defaults and all that
these reach. A network is also traced, which finds random operations; a function is not. Therefore
it may use only the libraries below, except random functions and reading files, and may not change
what another call could read. An array that outlives the call is only the right operand of
operators, since anything else may be a view of it, or change it. Anything else leaves the function
without a certain name.
"""

import contextlib
import functools
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from .._digest import digest
from ._code import CONSTRUCTORS, handed_on, read_code
from ._digests import Digest
from ._libraries import is_library, versions
from ._naming import Namer

# Libraries, modules or packages, that compute the same from the same values.
_PURE = {
    "abc", "base64", "binascii", "builtins", "cmath", "collections", "colorsys", "contextlib",
    "copy", "copyreg", "cv2", "dataclasses", "decimal", "enum", "fractions", "functools", "hashlib",
    "io", "itertools", "math", "numbers", "numpy", "re", "reprlib", "statistics",
    "string", "struct", "types", "typing", "warnings", "zlib", "PIL", "scipy.fft", "scipy.ndimage",
    "scipy.signal", "skimage.color", "skimage.exposure", "skimage.filters", "skimage.morphology",
    "skimage.transform", "skimage.util", "timm.data.transforms", "torch", "torchvision.transforms",
    "torchvision.tv_tensors",
}  # fmt: skip
# Packages in which classes draw random numbers under harmless names, and those that do not.
_SELECTED = ("torchvision.transforms", "timm.data.transforms")
_CLASSES = {
    "CenterCrop", "CenterCropOrPad", "Compose", "ConvertImageDtype", "FiveCrop", "Grayscale",
    "Identity", "ImageClassification", "InterpolationMode", "Lambda", "LinearTransformation",
    "MaybePILToTensor", "MaybeToTensor", "Normalize", "ObjectDetection", "PILToTensor", "Pad",
    "RGB", "Resize", "SemanticSegmentation", "TenCrop", "ToDtype", "ToImage", "ToNumpy",
    "ToPILImage", "ToPureTensor", "ToTensor", "Transform", "TrimBorder",
}  # fmt: skip
_PROCESSORS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil")
# Libraries of the values that a function takes and returns.
_ALWAYS_USED = ("PIL", "numpy", "torch")
# Names of what draws random numbers, reads files or devices, or depends on earlier calls.
_IMPURE = re.compile(
    "rand|noise|drop|shuffle|bernoulli|multinomial|poisson|gumbel|seed|generator|spread|kmeans|"
    "ransac|rrelu|fractional|batch_?norm|imread|memmap|genfromtxt|hub|grab|capture|storage|tick|flava|empty",
    re.IGNORECASE,
)
_IMPURE_NAMES = {
    "__import__", "binomial", "breakpoint", "cauchy_", "choice", "choices", "compile", "data_ptr",
    "delattr", "dir", "dnn", "eval", "exec", "exponential", "exponential_", "geometric_", "getattr",
    "globals", "hash", "id", "input", "integers", "locals", "log_normal_", "next", "normal",
    "normal_", "open", "permutation", "permuted", "sample", "setattr", "setflags", "training",
    "uniform", "uniform_", "vars",
}  # fmt: skip
_CONTAINERS = (list, dict, set, deque)
# Views and compiled functions change these without a trace in the code; reading changes the last.
_BUFFERS = (np.ndarray, torch.Tensor, bytearray, defaultdict)
# Special methods that code may name: others, such as `__iadd__` and `__dict__`, can change a value.
_SPECIAL = {*CONSTRUCTORS, "__call__", "__class__", "__name__", "__qualname__"}
_MUTATORS = {
    "add", "append", "appendleft", "clear", "copyto", "discard", "extend", "extendleft", "fill",
    "insert", "itemset", "pop", "popitem", "popleft", "put", "putmask", "remove", "reverse",
    "setdefault", "sort", "update",
}  # fmt: skip


class _FunctionNamer(Namer):
    """Names functions; records all that may give the same image another result.

    Parameters
    ----------
    building : bool, default=True
        As in `Namer`.
    """

    def __init__(self, *, building: bool = True) -> None:
        super().__init__(building=building)
        # What may change, and the functions that change something: together, a memory.
        self.held: dict[str, None] = {}
        self.mutators: dict[str, None] = {}
        # Arrays by name, and the names that are more than an operand.
        self.arrays: dict[str, str] = {}
        self.handed_on: set[str] = set()

    def library(self, module: str, name: str) -> str:
        """Return the name of an object of a library, which may be random."""
        if not _is_pure(module, name):
            self.unnamed.append(f"{module}.{name} may be random, or read what changes".lstrip("."))
        return super().library(module, name)

    def _function(self, function: FunctionType) -> str:
        if not is_library(str(function.__globals__.get("__name__", ""))):
            self._check(function)
            self._hold(_outliving(function))
        return super()._function(function)

    def _named(self, value: Any) -> str:
        if hasattr(type(value), "__next__"):
            return self.give_up(value, "is an iterator")
        if isinstance(value, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            # Its operations are not searched for random ones.
            return self.give_up(value, "is a script")
        if isinstance(value, BuiltinFunctionType) and isinstance(
            value.__self__, (*_CONTAINERS, *_BUFFERS)
        ):
            return self.give_up(value, f"{value.__name__} may change what it belongs to")
        if isinstance(value, functools.partial):
            self._hold(("", kept) for kept in (*value.args, *value.keywords.values()))
        elif not isinstance(value, type | ModuleType) and not is_library(type(value).__module__):
            own = [("", value)] if isinstance(value, _CONTAINERS) else []
            self._hold((*own, *_state(value)))
        return super()._named(value)

    def _caching_function(self, function: Any) -> str:
        if not is_library(str(function.__wrapped__.__module__)):
            return self.give_up(function, "keeps results of earlier calls")
        return super()._caching_function(function)

    def _check(self, function: FunctionType) -> None:
        """Record what a result may depend on, or what may change later results."""
        code, name = read_code(function.__code__), function.__qualname__
        for attribute in sorted(code.names):
            if attribute.startswith(".") and not _is_pure_name(attribute[1:]):
                self.unnamed.append(f"{name} uses {attribute}, which may be random")
            if attribute.startswith(".__") and attribute[1:] not in _SPECIAL:
                self.unnamed.append(f"{name} uses {attribute}, which may change a value")
        for written in sorted(code.writes):
            self.unnamed.append(f"{name} writes {written}, which it may read later")
        if function.__name__ not in CONSTRUCTORS:
            self.handed_on |= handed_on(function.__code__)
            if code.writes_items or any(map(_is_mutator, code.names)):
                self.mutators[name] = None

    def _hold(self, values: Iterable[tuple[str, Any]]) -> None:
        for name, value in values:
            kind = type(value).__name__
            if isinstance(value, _CONTAINERS):
                self.held[kind] = None
            if isinstance(value, np.ndarray) and not value.flags.writeable and value.base is None:
                # A tensor may share its memory and change it.
                self.held[kind] = None
            elif isinstance(value, _BUFFERS) or _is_picture(value):
                self.held[kind] = None
                self.arrays[name] = kind
            items = value.values() if isinstance(value, dict) else value
            if isinstance(value, (tuple, *_CONTAINERS)):
                self._hold((name, item) for item in items)

    def note_memory(self) -> None:
        """Record values that outlive a call and may change in it, after all code is named."""
        for kind in self.held if self.mutators else ():
            self.unnamed.append(
                f"{next(iter(self.mutators))} may change a {kind} that is read later"
            )
        for name, kind in self.arrays.items():
            if not name or name in self.handed_on:
                self.unnamed.append(
                    f"a {kind} that outlives the call, {name or 'an argument'}, may be changed. An "
                    "array that cannot: values.setflags(write=False)"
                )


def digest_function(function: Callable[[Any], Any]) -> Digest:
    """Digest a function from image to image, including everything that it reads.

    Parameters
    ----------
    function : callable
        A function, or an object that can be called.

    Returns
    -------
    digest : Digest
        Its text covers the versions of libraries; `unnamed` is empty only if an image always has
        the same result.
    """
    namer = _FunctionNamer(building=True)
    # Defaults of new tensors.
    name = namer.name((function, torch.get_default_dtype(), torch.get_default_device()))
    namer.note_memory()
    libraries = frozenset({*namer.libraries, *_ALWAYS_USED})
    text = digest("function-1", name, *versions(libraries))
    return Digest(text, tuple(dict.fromkeys(namer.unnamed)), libraries)


def _is_pure(module: str, name: str) -> bool:
    """Whether something of a library computes the same from the same values."""
    parts = [part.removeprefix("_") for part in module.split(".")]
    if any(not _is_pure_name(part) for part in (*parts, *name.split("."))):
        return False
    module = ".".join(parts)
    if parts[0] == "transformers":
        return name.endswith(_PROCESSORS) or "image_utils" in module
    if not any(module == pure or module.startswith(f"{pure}.") for pure in _PURE):
        return False
    if name and module.startswith(_SELECTED):
        first = name.partition(".")[0]
        return first in _CLASSES or first[:1].islower() or first.startswith("_")
    return True


def _is_pure_name(name: str) -> bool:
    return name not in _IMPURE_NAMES and not _IMPURE.search(name)


def _is_mutator(name: str) -> bool:
    """Whether a name is of an attribute that may change an object; a tensor's end in "_"."""
    return name.startswith(".") and (
        name[1:] in _MUTATORS or (name.endswith("_") and not name.endswith("__"))
    )


def _is_picture(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "putpixel")


def _outliving(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the values that outlive a call, by name: of closure, defaults and global variables."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # An empty cell belongs to a function that is not defined yet.
        with contextlib.suppress(ValueError):
            yield name, cell.cell_contents
    kept = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from (("", value) for value in (*kept, *vars(function).values()))
    for read in read_code(function.__code__).reads:
        name, value = read.name, function.__globals__.get(read.name)
        for attribute in read.attributes:
            if isinstance(value, ModuleType):
                name, value = f".{attribute}", getattr(value, attribute, None)
        yield name, value


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object and of its classes, by name."""
    for name, member in getattr(value, "__dict__", {}).items():
        yield f".{name}", member
    for base in type(value).__mro__:
        if not is_library(base.__module__):
            for name, member in vars(base).items():
                if not (name.startswith("__") and name.endswith("__")):
                    own = member if not hasattr(member, "__set__") else getattr(value, name, None)
                    yield f".{name}", own
