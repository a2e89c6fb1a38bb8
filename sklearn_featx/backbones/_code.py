"""Python bytecode: digests that ignore line numbers, and the global names that code reads.

Bytecode is digested instead of source, since a file may have been edited after its import.
Docstrings, comments, line numbers and file names do not matter.
"""

import dis
import functools
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import Any, NamedTuple

from .._digest import digest

# From Python 3.12 on, `super().name` is one instruction, and class bodies have loads of their own.
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_CHAINED = ("LOAD_ATTR", "LOAD_METHOD")
_ATTRIBUTES = (*_CHAINED, "LOAD_SUPER_ATTR")
# Python 3.13 stores where a class begins, and the attributes of its methods in any order.
_PLACE_OF_CLASS = ("__firstlineno__", "__static_attributes__")
# From Python 3.14 on, a flag tells whether there is a docstring.
_HAS_DOCSTRING = 0x4000000
_IDLE = ("RESUME", "NOP", "CACHE", "PRECALL", "EXTENDED_ARG")
_INTO_GLOBALS = ("STORE_GLOBAL", "DELETE_GLOBAL")
_INTO_ATTRIBUTES = ("STORE_ATTR", "DELETE_ATTR")
_INTO_CLOSURES = ("STORE_DEREF", "DELETE_DEREF")
_INTO_ITEMS = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE")
# Methods that set the attributes of a new object.
CONSTRUCTORS = ("__init__", "__post_init__", "__new__", "__setstate__")


class Read(NamedTuple):
    """A global name or an import that code reads.

    Parameters
    ----------
    name : str
        Name of a global variable, or of a module that is imported when the code runs.
    attributes : tuple of str
        Chain of attributes that are read from it; empty if the value itself is used.
    level : int, default=-1
        Level of an import, 0 for an absolute one; -1 for a global variable.
    """

    name: str
    attributes: tuple[str, ...]
    level: int = -1


class Code(NamedTuple):
    """The digest and the names of a code object.

    Parameters
    ----------
    digest : str
        Equal for equal instructions and constants.
    reads : tuple of Read
        Distinct reads in a fixed order, including those of nested functions.
    names : frozenset of str
        All names of global variables, and of attributes with a leading dot.
    texts : frozenset of str
        All string constants.
    writes : frozenset of str
        Names of global variables, of variables of enclosing functions and of attributes (with a
        leading dot) that code writes. Constructors may write attributes.
    writes_items : bool
        Whether items of arrays or containers may be written.
    """

    digest: str
    reads: tuple[Read, ...]
    names: frozenset[str]
    texts: frozenset[str]
    writes: frozenset[str]
    writes_items: bool


@functools.lru_cache(maxsize=8192)
def read_code(code: CodeType) -> Code:
    """Return the digest and the names of a code object, which is immutable."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _IDLE]
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = digest(
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & ~_HAS_DOCSTRING,
        repr(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]),
        repr(code.co_freevars),
        code.co_exceptiontable,
        *(f"{i.opname} {_constant(i.argval)}" for i in _without_place(instructions)),
    )
    reads = [*_reads(instructions), *(read for c in inner for read in read_code(c).reads)]
    used = {
        i.argval if i.opname in _LOADS else f".{i.argval}"
        for i in instructions
        if i.opname in (*_LOADS, *_ATTRIBUTES, "IMPORT_FROM")
    }
    names = frozenset(used).union(*(read_code(c).names for c in inner))
    texts = frozenset(_strings(code.co_consts)).union(*(read_code(c).texts for c in inner))
    return Code(
        own,
        tuple(dict.fromkeys(reads)),
        names,
        texts,
        frozenset(_writes(code, instructions)).union(*(_outer_writes(c, code) for c in inner)),
        _writes_items(code, instructions) or any(read_code(c).writes_items for c in inner),
    )


def _writes_items(code: CodeType, instructions: Sequence[dis.Instruction]) -> bool:
    """Whether code writes items, or has `out=` or an operator such as ``+=``."""
    return any(
        isinstance(constant, tuple) and "out" in constant for constant in code.co_consts
    ) or any(
        i.opname in _INTO_ITEMS or (i.opname == "BINARY_OP" and i.argrepr.endswith("="))
        for i in instructions
    )


def _without_place(instructions: Sequence[dis.Instruction]) -> Iterator[dis.Instruction]:
    """Yield the instructions that do not depend on where a class stands in its file."""
    stored = [i.opname == "STORE_NAME" and i.argval in _PLACE_OF_CLASS for i in instructions]
    for i, instruction in enumerate(instructions):
        if not any(stored[i : i + 2]):
            yield instruction


def _strings(constants: Iterable[Any]) -> Iterator[str]:
    """Yield the strings among constants, also those in tuples and sets."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from _strings(constant)


def _writes(code: CodeType, instructions: Sequence[dis.Instruction]) -> Iterator[str]:
    for i in instructions:
        if i.opname in _INTO_ATTRIBUTES and code.co_name not in CONSTRUCTORS:
            yield f".{i.argval}"
        elif i.opname in _INTO_GLOBALS or (
            i.opname in _INTO_CLOSURES and i.argval in code.co_freevars
        ):
            yield str(i.argval)


def _outer_writes(inner: CodeType, code: CodeType) -> Iterator[str]:
    """Return what a nested function writes, but for the variables of the enclosing function."""
    own = set(code.co_cellvars) & set(inner.co_freevars)
    return (name for name in read_code(inner).writes if name not in own)


def _reads(instructions: Sequence[dis.Instruction]) -> Iterator[Read]:
    for i, instruction in enumerate(instructions):
        if instruction.opname in _LOADS:
            yield Read(str(instruction.argval), _chain(instructions[i + 1 :]))
        elif instruction.opname == "IMPORT_NAME":
            # The two constants before it: the level, and the names after `from module import`.
            level, imported = instructions[i - 2].argval, instructions[i - 1].argval
            names: list[tuple[str, ...]] = [(name,) for name in imported or ()]
            for attributes in names or [()]:
                yield Read(str(instruction.argval), attributes, int(level or 0))


def _chain(following: Sequence[dis.Instruction]) -> tuple[str, ...]:
    """Return the chain of attributes that are read from the value on top of the stack."""
    names = []
    for instruction in following:
        if instruction.opname not in _CHAINED:
            break
        names.append(str(instruction.argval))
    return tuple(names)


def _constant(value: Any) -> str:
    """Convert a constant to text; the items of a set are sorted."""
    if isinstance(value, CodeType):
        return read_code(value).digest
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"
