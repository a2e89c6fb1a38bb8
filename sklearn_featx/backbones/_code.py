"""Compiled Python code: a digest that knows no line numbers, and what the code reads from outside.

Bytecode, not source: a file may have been edited since it was imported, and what runs is the
bytecode. Docstrings, comments, line numbers and file names do not count.
"""

import dis
import functools
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any, NamedTuple

from .._digest import digest

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_IDLE = ("RESUME", "NOP", "CACHE", "PRECALL")


class Read(NamedTuple):
    """Something that code reads from outside of itself.

    Parameters
    ----------
    name : str
        Name of a global variable, or of a module that is imported when the code runs.
    attributes : tuple of str
        Attributes that are read from it one after the other; empty where it is used itself.
    level : int, default=-1
        Level of an import, 0 for an absolute one; -1 for a global variable.
    """

    name: str
    attributes: tuple[str, ...]
    level: int = -1


class Code(NamedTuple):
    """What a code object is.

    Parameters
    ----------
    digest : str
        Equal for equal instructions and constants.
    reads : tuple of Read
        In a fixed order, each once; those of functions inside it included.
    names : frozenset of str
        All names of global variables in it, and of attributes, with a dot before them.
    texts : frozenset of str
        All constants in it that are text.
    """

    digest: str
    reads: tuple[Read, ...]
    names: frozenset[str]
    texts: frozenset[str]


@functools.lru_cache(maxsize=8192)
def read_code(code: CodeType) -> Code:
    """Return digest and reads of a code object, which never changes."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _IDLE]
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = digest(
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        repr(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]),
        repr(code.co_freevars),
        code.co_exceptiontable,
        *(f"{i.opname} {_constant(i.argval)}" for i in instructions),
    )
    reads = [*_reads(instructions), *(read for c in inner for read in read_code(c).reads)]
    used = {
        i.argval if i.opname in _LOADS else f".{i.argval}"
        for i in instructions
        if i.opname in (*_LOADS, *_ATTRIBUTES, "IMPORT_FROM")
    }
    names = frozenset(used).union(*(read_code(c).names for c in inner))
    constants = {constant for constant in code.co_consts if isinstance(constant, str)}
    texts = frozenset(constants).union(*(read_code(c).texts for c in inner))
    return Code(own, tuple(dict.fromkeys(reads)), names, texts)


def _reads(instructions: Sequence[dis.Instruction]) -> Iterator[Read]:
    for i, instruction in enumerate(instructions):
        if instruction.opname in _LOADS:
            yield Read(str(instruction.argval), _chain(instructions[i + 1 :]))
        elif instruction.opname == "IMPORT_NAME":
            level = instructions[i - 2].argval
            names = _imported(instructions[i + 1 :]) or [()]
            for attributes in names:
                yield Read(str(instruction.argval), attributes, int(level or 0))


def _chain(following: Sequence[dis.Instruction]) -> tuple[str, ...]:
    """Attributes read from the value on top of the stack, one after the other."""
    names = []
    for instruction in following:
        if instruction.opname not in _ATTRIBUTES:
            break
        names.append(str(instruction.argval))
    return tuple(names)


def _imported(following: Sequence[dis.Instruction]) -> list[tuple[str, ...]]:
    """Names that ``from module import`` takes from a module."""
    names: list[tuple[str, ...]] = []
    for instruction in following:
        if instruction.opname == "IMPORT_FROM":
            names.append((str(instruction.argval),))
        elif not instruction.opname.startswith("STORE_"):
            break
    return names


def _constant(value: Any) -> str:
    """Write a constant as text; sets have no order of their own."""
    if isinstance(value, CodeType):
        return read_code(value).digest
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"
