"""Limits of size: files, functions, the root of the package."""

import ast
import io
import statistics
import tokenize
from pathlib import Path

import pytest

import sklearn_featx

PACKAGE = Path(sklearn_featx.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_A_FILE = 500
MEDIAN_LINES = 180
LINES_OF_A_FUNCTION = 40
FILES_IN_THE_ROOT = 15
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def named(path):
    return str(path.relative_to(PACKAGE))


def code_lines(text):
    """Numbers of the lines that hold code: no comments, no blank lines."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        number
        for token in tokens
        if token.type not in NO_CODE
        for number in range(token.start[0], token.end[0] + 1)
    }


def is_docstring(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def only_stores(statements):
    """Whether a function assigns its arguments and hands them on, as scikit-learn's `__init__`."""
    return all(
        (isinstance(s, ast.Assign) and isinstance(s.value, ast.Name))
        or (isinstance(s, ast.Expr) and ast.unparse(s).startswith("super().__init__("))
        for s in statements
    )


def lengths(text):
    """(name, lines of code) of each function, its signature and docstring left out.

    An `__init__` that only stores its arguments is a list of names, however long.
    """
    code = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if is_docstring(node.body[0]) else node.body
            if body and not (node.name == "__init__" and only_stores(body)):
                lines = range(body[0].lineno, node.end_lineno + 1)
                yield node.name, len(code.intersection(lines))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_has_one_subject(path):
    assert len(path.read_text("utf-8").splitlines()) <= LINES_OF_A_FILE


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_function_does_one_thing(path):
    found = dict(lengths(path.read_text("utf-8")))
    assert {name: n for name, n in found.items() if n > LINES_OF_A_FUNCTION} == {}


def test_half_of_the_files_are_short():
    lines = [len(path.read_text("utf-8").splitlines()) for path in FILES]
    assert statistics.median(lines) <= MEDIAN_LINES


def test_the_root_is_the_ground():
    files = [path.name for path in PACKAGE.iterdir() if path.is_file()]
    assert len(files) <= FILES_IN_THE_ROOT, sorted(files)


def test_lengths_are_counted():
    body = "".join(f"    x = {i}  # a comment\n\n" for i in range(41))
    text = (
        f'def f(\n    a,\n    b,\n):\n    """Docstring\n\n    of many lines."""\n    # why\n{body}'
    )
    assert dict(lengths(text)) == {"f": 41}
    stores = "class A:\n    def __init__(self, a):\n        self.a = a\n"
    assert dict(lengths(stores)) == {}
    assert dict(lengths(stores.replace("= a\n", "= a + 1\n"))) == {"__init__": 1}
