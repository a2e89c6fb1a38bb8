"""Functions from image to image: their digest, if an image always gets the same result.

A function is named as the code of a network is: by its bytecode, closure and defaults and all that
these reach. A network is also traced, which finds random operations; a function is not. Therefore
it may use only the libraries below, except random functions and reading files, and may not write
global variables, those of enclosing functions, or attributes. Anything else leaves the function
without a certain name. Changes of arrays, lists and other values that outlive a call are not
searched for: they change the name, which whoever calls the function compares after each call.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from .._digest import digest
from .._graphs import default_device
from ._code import CONSTRUCTORS, Read, read_code
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
# Names of what draws random numbers, reads files or devices, depends on earlier calls, or reads
# memory that is not in the name, such as that around a view.
_IMPURE = re.compile(
    "rand|noise|drop|shuffle|bernoulli|multinomial|poisson|gumbel|seed|generator|spread|kmeans|"
    "ransac|rrelu|fractional|batch_?norm|imread|memmap|genfromtxt|hub|grab|capture|storage|tick|flava|empty",
    re.IGNORECASE,
)
_IMPURE_NAMES = {
    "__import__", "as_strided", "backward", "base", "binomial", "breakpoint", "cauchy_", "choice",
    "choices", "compile", "ctypes", "data_ptr", "delattr", "dir", "dnn", "eval", "exec",
    "exponential", "exponential_", "geometric_", "getattr", "globals", "grad", "hash", "id",
    "input", "integers", "locals", "log_normal_", "next", "normal", "normal_", "open",
    "permutation", "permuted", "sample", "setattr", "training", "uniform", "uniform_", "vars",
}  # fmt: skip
_CONTAINERS = (list, dict, set, deque)
_BUFFERS = (bytearray, np.ndarray, torch.Tensor)
# The maximum that is digested after each call. An item of a list takes as long as 1 KiB.
_MOST_BYTES = 2**22
_BYTES_PER_ITEM = 2**10
_TOO_LARGE = "outlives the call, and is too large to compare after each: 4 MiB or 4096 items"
# Special methods that code may name: others, such as `__globals__`, reach what is not in the name.
_SPECIAL = {*CONSTRUCTORS, "__call__", "__class__", "__name__", "__qualname__"}
_MUTATORS = {
    "add", "append", "appendleft", "clear", "copyto", "discard", "extend", "extendleft", "fill",
    "insert", "itemset", "pop", "popitem", "popleft", "put", "putmask", "remove", "reverse",
    "setdefault", "sort", "update",
}  # fmt: skip


class FunctionDigest(NamedTuple):
    """Digest of a function, equal after a call if the call has changed nothing.

    Parameters
    ----------
    text : str
        The digest, which covers the versions of libraries.
    unnamed : tuple of str
        What may give the same image another result; empty if the digest is certain.
    writes : bool
        Whether a call may change a value that outlives it, and restore it.
    """

    text: str
    unnamed: tuple[str, ...]
    writes: bool


class _FunctionNamer(Namer):
    """Names functions; records all that may give the same image another result.

    Parameters
    ----------
    building : bool, default=True
        As in `Namer`.
    """

    def __init__(self, *, building: bool = True) -> None:
        super().__init__(building=building)
        self.holds = self.writes = False
        self.n_bytes = 0

    def name(self, value: Any) -> str:
        """Return the digest of a value."""
        if isinstance(value, str | bytes | tuple) and self._exceeds(_n_bytes(value)):
            return self.give_up(value, _TOO_LARGE)
        return super().name(value)

    def _exceeds(self, n_bytes: int) -> bool:
        """Add to the size of all values; return whether it is too large."""
        self.n_bytes += n_bytes
        return self.n_bytes > _MOST_BYTES

    def library(self, module: str, name: str) -> str:
        """Return the name of an object of a library, which may be random."""
        if not _is_pure(module, name):
            self.unnamed.append(f"{module}.{name} may be random, or read what changes".lstrip("."))
        return super().library(module, name)

    def absorb(self, namer: Namer) -> None:
        """Record what another namer has found."""
        super().absorb(namer)
        assert isinstance(namer, _FunctionNamer)
        self.holds |= namer.holds
        self.writes |= namer.writes
        self.n_bytes += namer.n_bytes

    def _function(self, function: FunctionType) -> str:
        if not is_library(str(function.__globals__.get("__name__", ""))):
            self._check(function)
        return super()._function(function)

    def _named(self, value: Any) -> str:
        if hasattr(type(value), "__next__"):
            return self.give_up(value, "is an iterator")
        if isinstance(value, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            # Its operations are not searched for random ones.
            return self.give_up(value, "is a script")
        if self._exceeds(_n_bytes(value)):
            return self.give_up(value, _TOO_LARGE)
        self.holds |= isinstance(value, _BUFFERS) or _is_picture(value)
        self.holds |= isinstance(value, _CONTAINERS) and len(value) > 0
        return super()._named(value)

    def _read(self, read: Read, scope: Mapping[str, Any]) -> str:
        name, value = super()._read(read, scope), scope.get(read.name)
        for attribute in read.attributes:
            value = getattr(value, attribute, None) if isinstance(value, ModuleType) else value
        # That of a library is named by its place, and may be changed all the same.
        changeable = isinstance(value, (*_CONTAINERS, *_BUFFERS))
        return digest(name, self.name(value)) if changeable else name

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
                self.unnamed.append(f"{name} uses {attribute}, which may reach any value")
        for written in sorted(code.writes):
            self.unnamed.append(f"{name} writes {written}, which it may read later")
        if function.__name__ not in CONSTRUCTORS:
            self.writes |= code.writes_items or any(map(_is_mutator, code.names))


def digest_function(function: Callable[[Any], Any]) -> FunctionDigest:
    """Digest a function from image to image, including everything that it reads.

    Parameters
    ----------
    function : callable
        A function, or an object that can be called.

    Returns
    -------
    digest : FunctionDigest
        An image has the same result under the same certain digest, if the function has this digest
        after the call, too.
    """
    namer = _FunctionNamer(building=True)
    # Defaults of new tensors.
    name = namer.name((function, torch.get_default_dtype(), default_device()))
    libraries = {*namer.libraries, *_ALWAYS_USED}
    text = digest("function-2", name, *versions(libraries))
    return FunctionDigest(text, tuple(dict.fromkeys(namer.unnamed)), namer.holds and namer.writes)


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
    return hasattr(type(value), "putpixel")


def _n_bytes(value: Any) -> int:
    """Return the size of a value as the time of its digest, without that of its items."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return int(value.nbytes)
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, (tuple, *_CONTAINERS)):
        return _BYTES_PER_ITEM * len(value)
    return 4 * value.width * value.height if _is_picture(value) else 0
