"""Naming of Python objects: digests of values, including all code that they can reach.

The name of a value is a digest of its content, never of its address, its module's path or a pickle.
The name of a function or class covers its bytecode and everything that the code reads: closures,
defaults, attributes, global variables. The search stops at libraries, whose functions and classes
are identified by their names. An object without a certain name (state inside an extension, a lock,
an open file) is recorded and gets the name of its type.
"""

import copyreg
import enum
import functools
import importlib
import importlib.util
import math
import os
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, ClassVar

import numpy as np
import torch

from .._digest import digest, digest_array
from ._code import Read, read_code
from ._libraries import OWN_PACKAGE, is_library

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_SHOWN = (range, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)
_MAPPINGS = (dict, OrderedDict, defaultdict, MappingProxyType)
_COMPILED = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
_WRAPPERS = (staticmethod, classmethod)
_CACHED = type(functools.lru_cache(len))
# Names by which code can read values that its bytecode does not contain.
_UNFOLLOWED = {"eval", "exec", "globals", "__import__"}
_UNFOLLOWED |= {".import_module", ".environ", ".getenv", "import_module", "environ", "getenv"}
# Names by which code may read a network from a file, which may change under its name.
_READING = {
    "open", "load", "load_file", "safe_open", "load_state_dict_from_url", "from_pretrained",
    "load_from_checkpoint", "load_checkpoint", "read_text", "read_bytes", "fromfile", "loadtxt",
    "torch_load", "hf_hub_download", "snapshot_download", "urlopen", "urlretrieve", "File",
}  # fmt: skip
_READING |= {f".{name}" for name in _READING}
_NOTES = {
    "__annotate_func__",  # from Python 3.14; it refers to the line of the class
    "_abc_impl",
    "_autograd_function_id",
    "_backward_cls",
    "_compiled_autograd_backward_state",
}
# Names of the location, not of the content.
_PLACE = {"__name__", "__module__", "__qualname__", "__spec__", "__package__"}
# A network reaches some hundreds of functions and objects; more belong to a whole application.
_MOST_VALUES = 20_000
_LONGEST_PATH = 1024


def _reads_modules(read: Read, scope: dict[str, Any]) -> bool:
    """Whether code reads the table of modules, which may have any module at a name."""
    value = scope.get(read.name)
    return value is sys.modules or (value is sys and read.attributes[:1] == ("modules",))


class Namer:
    """Names values. An object that occurs again is represented by its number.

    Parameters
    ----------
    building : bool, default=False
        Whether the code builds a network, and may read files.

    Attributes
    ----------
    unnamed : list of str
        Descriptions of objects without a certain name.
    libraries : set of str
        Top-level modules whose code the values use.
    """

    # Types that other files register: type to the method that names its values.
    _special: ClassVar[dict[type, Callable[["Namer", Any], str]]] = {}

    def __init__(self, *, building: bool = False) -> None:
        self._suspect = _UNFOLLOWED | _READING if building else _UNFOLLOWED
        self._building = building
        self.unnamed: list[str] = []
        self.libraries: set[str] = set()
        self._numbers: dict[int, int] = {}
        # References to named objects, so that no id is reused.
        self._held: list[Any] = []
        # Most classes of a network have the same bases.
        self._users_functions = functools.cache(_users_functions)

    @classmethod
    def register(cls, kind: type, method: Callable[["Namer", Any], str]) -> None:
        """Register a method that names the values of a type and its subclasses."""
        cls._special[kind] = method

    def name(self, value: Any) -> str:
        """Return the digest of a value."""
        if type(value) in _PLAIN:
            if self._building and isinstance(value, str):
                self._note_file(value)
            return digest(type(value).__name__, _plain(value))
        if type(value) in _SHOWN:
            return digest(type(value).__name__, repr(value))
        if type(value) is tuple:
            return digest("tuple", *map(self.name, value))
        if isinstance(value, np.generic):
            return digest_array(np.asarray(value))
        if (number := self._numbers.get(id(value))) is not None:
            return digest("again", number)
        self._numbers[id(value)] = len(self._numbers)
        self._held.append(value)
        if len(self._held) > _MOST_VALUES:
            return self.give_up(value, "reaches too much code")
        try:
            return self._named(value)
        except RecursionError:
            return self.give_up(value, "is nested too deeply")

    def give_up(self, value: Any, why: str = "has no name") -> str:
        """Record a value without a certain name, and return the name of its type."""
        self.unnamed.append(f"{type(value).__module__}.{type(value).__qualname__} {why}")
        return digest("unnamed", type(value).__qualname__)

    def library(self, module: str, name: str) -> str:
        """Return the name of an object of a library."""
        root = module.partition(".")[0]
        self.libraries.add(root)
        # Files of this package may move.
        return digest("library", root if root == OWN_PACKAGE else module, name)

    def _named(self, value: Any) -> str:
        for kind, method in self._special.items():
            if isinstance(value, kind):
                return method(self, value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return digest("method", self.name(value.__func__), self.name(value.__self__))
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return self._module(value)
        if isinstance(value, CodeType):
            return read_code(value).digest
        if isinstance(value, _COMPILED):
            return self._compiled(value)
        return self._container(value) or self._descriptor(value) or self._object(value)

    def _note_file(self, text: str) -> None:
        """Record a text that is the path of a file, whose content may change."""
        if "\0" not in text and len(text) < _LONGEST_PATH and os.path.isfile(text):  # noqa: PTH113
            self.unnamed.append(f"{text!r:.100} is a file")

    # Containers and descriptors

    def _container(self, value: Any) -> str | None:
        kind = type(value)
        if kind in _SEQUENCES:
            return digest(kind.__name__, *map(self.name, value))
        if kind in _SETS:
            return digest(kind.__name__, *sorted(self._alone(item) for item in value))
        if kind in _MAPPINGS:
            items = (part for pair in value.items() for part in map(self.name, pair))
            return digest(kind.__name__, self.name(getattr(value, "default_factory", 0)), *items)
        if isinstance(value, np.ndarray) and kind is np.ndarray:
            if value.dtype.hasobject:
                return digest("objects", repr(value.shape), *map(self.name, value.ravel().tolist()))
            return digest_array(value)
        if isinstance(value, enum.Enum):
            return digest("enum", self.name(kind), value.name)
        return None

    def _alone(self, item: Any) -> str:
        """Name an item of a set on its own, since the order of a set differs between processes."""
        namer = type(self)(building=self._building)
        name = namer.name(item)
        self.absorb(namer)
        return name

    def absorb(self, namer: "Namer") -> None:
        """Record what another namer has found."""
        self.unnamed += namer.unnamed
        self.libraries |= namer.libraries

    def _descriptor(self, value: Any) -> str | None:
        if isinstance(value, functools.partial):
            parts = (value.func, list(value.args), dict(value.keywords), vars(value))
            return digest("partial", *map(self.name, parts))
        if isinstance(value, property):
            return digest("property", *map(self.name, (value.fget, value.fset, value.fdel)))
        if isinstance(value, _WRAPPERS):
            return digest(type(value).__name__, self.name(value.__func__))
        if isinstance(value, functools.cached_property):
            return digest("cached_property", self.name(value.func))
        if isinstance(value, weakref.ref):
            return digest("weak", self.name(value()))
        if isinstance(value, PurePath):
            return digest(type(value).__name__, self.name(str(value)))
        if isinstance(value, _CACHED):
            return self._caching_function(value)
        return None

    def _caching_function(self, function: Any) -> str:
        """Name a function under `functools.lru_cache`, unless it has cached results."""
        wrapped = function.__wrapped__
        if function.cache_info().currsize and not is_library(str(wrapped.__module__)):
            return self.give_up(function, f"{wrapped.__qualname__} keeps results of earlier calls")
        return digest("lru_cache", self.name(wrapped))

    # Code

    def _function(self, function: FunctionType) -> str:
        # `functools.wraps` copies `__module__`.
        module = str(function.__globals__.get("__name__", ""))
        code = function.__code__
        closure = [self.name(_content(cell)) for cell in function.__closure__ or ()]
        if is_library(module):
            # A decorator of a library holds the decorated function in its closure.
            return digest(self.library(module, code.co_qualname), *closure)
        found = read_code(code)
        for name in sorted(found.names & self._suspect):
            self.unnamed.append(f"{code.co_qualname} uses {name}")
        if self._building:
            for text in sorted(found.texts):
                self._note_file(text)
        state = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        settings = (function.__defaults__, function.__kwdefaults__, state)
        scope = function.__globals__
        if any(_reads_modules(read, scope) for read in found.reads):
            self.unnamed.append(f"{code.co_qualname} uses sys.modules")
        reads = [self._read(read, scope) for read in found.reads if read.name not in _PLACE]
        return digest("function", found.digest, *closure, *map(self.name, settings), *reads)

    def _read(self, read: Read, scope: Mapping[str, Any]) -> str:
        """Name a value that code reads."""
        if read.level >= 0:
            value, missing = _import(read, scope)
        else:
            builtins = scope.get("__builtins__", {})
            builtins = vars(builtins) if isinstance(builtins, ModuleType) else builtins
            value = scope.get(read.name, builtins.get(read.name, _MISSING))
            missing = value is _MISSING
        if missing:
            return digest("missing", read.name)
        for i, attribute in enumerate(read.attributes):
            if not isinstance(value, ModuleType):
                break
            module, value = value.__name__, getattr(value, attribute, _MISSING)
            if is_library(module) and not _is_replaced(value):
                # Its state, such as that of a random generator, belongs to the library.
                return self.library(module, ".".join(read.attributes[i:]))
        return digest(read.name, *read.attributes, self.name(value))

    def _class(self, cls: type) -> str:
        module = str(cls.__module__)
        if is_library(module) and _found_in(module, cls):
            name = vars(cls).get("digest_name", cls.__qualname__)
            return digest(self.library(module, name), *self._replaced(cls))
        if issubclass(cls, enum.Enum):
            written = [self.name((member.name, member.value)) for member in cls]
            functions = {k: v for k, v in vars(cls).items() if isinstance(v, FunctionType)}
            return digest("enum", cls.__name__, *written, *self._written(functions))
        bases = [self.name(base) for base in (type(cls), *cls.__bases__)]
        return digest("class", cls.__name__, *bases, *self._written(vars(cls)))

    def _written(self, members: Mapping[str, Any]) -> Iterator[str]:
        """Name the members of a class, sorted by name, since the order in a file may change."""
        for key, value in sorted(members.items()):
            if not _is_note(key, value):
                yield digest(key, self.name(value))

    def _replaced(self, cls: type) -> Iterator[str]:
        """Name functions that a user has put into a library's class or into its bases."""
        for base in cls.__mro__:
            for key, value in self._users_functions(base):
                yield digest(base.__qualname__, key, self.name(value))

    def _module(self, module: ModuleType) -> str:
        if is_library(module.__name__):
            return self.library(module.__name__, "")
        # The module itself is used, so all of its members can be reached.
        members = {k: v for k, v in vars(module).items() if not k.startswith("__")}
        return digest("module", *self._written(members))

    def _compiled(self, function: Any) -> str:
        """Name a compiled function of a library, or a compiled method of an object."""
        owner = getattr(function, "__self__", None)
        owner = getattr(function, "__objclass__", owner)
        if isinstance(owner, type):
            return digest("compiled", function.__name__, self.name(owner))
        module = owner.__name__ if isinstance(owner, ModuleType) else function.__module__
        if module is not None or owner is None:
            # PyTorch's own functions have no module.
            if is_library(module) or (module is None and _is_torch(function)):
                return self.library(module or "torch", function.__qualname__)
            return self.give_up(function, f"{function.__name__} is compiled")
        return digest("compiled", function.__name__, self.name(owner))

    # Objects

    def _object(self, value: Any) -> str:
        """Name any other object by its class and state."""
        cls = type(value)
        if not is_library(cls.__module__) and _is_written_in_python(cls):
            return digest("object", self.name(cls), *self._state(value))
        try:
            # The values that a pickle would contain: class, arguments and state.
            reduce = copyreg.dispatch_table.get(cls)
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception:
            # The class's own code runs here, which may raise anything.
            return self.give_up(value)
        if isinstance(reduced, str):
            return digest("global", self.name(cls), reduced)
        # State that a class omits from its pickles matters as well.
        own = [] if is_library(cls.__module__) else list(self._state(value))
        function, arguments, *rest = reduced
        state, items, pairs = [*rest, None, None, None][:3]
        return digest(
            "object",
            *map(self.name, (cls, function, arguments, state)),
            *map(self.name, items or ()),
            *map(self.name, pairs or ()),
            *own,
        )

    def _state(self, value: Any) -> Iterator[str]:
        """Name the attributes, slots and items of an object whose class is written in Python."""
        yield self.name(dict(sorted(vars(value).items())) if hasattr(value, "__dict__") else None)
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot) and slot not in ("__dict__", "__weakref__"):
                    yield digest(slot, self.name(getattr(value, slot)))
        for base in (*_MAPPINGS, *_SEQUENCES, *_SETS, str, bytes, int, float):
            if isinstance(value, base):
                plain: Any = base
                yield self.name(plain(value))
                break


_MISSING = enum.Enum("_MISSING", "missing").missing  # type: ignore[attr-defined]


def _is_note(key: str, value: Any) -> bool:
    """Whether a member was added to a class by Python or a library, not by its author."""
    if isinstance(value, MemberDescriptorType | GetSetDescriptorType):
        return True
    special = key.startswith("__") and key.endswith("__")
    return key in _NOTES or (
        special and not isinstance(value, (FunctionType, property, *_WRAPPERS))
    )


def _plain(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return repr(value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _import(read: Read, scope: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the module that code imports at run time, and whether it is missing."""
    package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
    try:
        name = importlib.util.resolve_name("." * read.level + read.name, package or None)
        module = importlib.import_module(name)
    except Exception:
        # The module's own code runs at its import, which may raise anything.
        return None, True
    # `import a.b` binds a.
    whole = not read.attributes and read.level == 0
    return sys.modules[name.partition(".")[0]] if whole else module, False


def _found_in(module: str, cls: type) -> bool:
    """Whether a module contains a class under its name; some classes are created at run time."""
    value: Any = sys.modules.get(module)
    for part in cls.__qualname__.split("."):
        value = getattr(value, part, None)
    return value is cls


def _users_functions(cls: type) -> list[tuple[str, FunctionType]]:
    """Return the functions in a library's class that belong to no library."""
    if not is_library(cls.__module__):
        return []
    return sorted(
        (key, value)
        for key, value in vars(cls).items()
        if isinstance(value, FunctionType)
        and not is_library(str(value.__globals__.get("__name__", "")))
    )


def _is_written_in_python(cls: type) -> bool:
    """Whether a class and its bases are Python code or builtin types, with all state visible."""
    known = (object, *_MAPPINGS, *_SEQUENCES, *_SETS, str, bytes, int, float)
    heap = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, or by an extension
    return all(
        base in known or (base.__flags__ & heap and not is_library(base.__module__))
        for base in cls.__mro__
    )


def _is_replaced(value: Any) -> bool:
    """Whether a member of a library's module may be a user's; modules must be searched."""
    if isinstance(value, FunctionType):
        return not is_library(str(value.__globals__.get("__name__", "")))
    if isinstance(value, type):
        return not is_library(value.__module__) or any(map(_users_functions, value.__mro__))
    return isinstance(value, ModuleType)


def _is_torch(function: Any) -> bool:
    return getattr(torch, function.__name__, None) is function
