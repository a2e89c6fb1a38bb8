"""Digests and names of bytecode: the same findings in every version of Python."""

import pytest

from sklearn_featx.backbones._code import read_code

CLASS = """
def build(picture):
    class Built:
        def __init__(self):
            self.one, self.two, self.three, self.four = picture
    return Built()
"""


def code_of(text, owner=None):
    scope = {}
    exec(compile(text, "file.py", "exec"), scope)
    function = vars(scope[owner])["build"] if owner else scope["build"]
    return function.__code__


def test_the_place_of_a_class_is_not_in_the_digest():
    assert read_code(code_of(CLASS)).digest == read_code(code_of("\n\n" + CLASS)).digest
    other = CLASS.replace("self.one", "self.zero")
    assert read_code(code_of(CLASS)).digest != read_code(code_of(other)).digest


def test_a_docstring_is_not_in_the_digest():
    code = code_of("def build(x):\n    'Text.'\n    return x")
    plain = read_code(code_of("def build(x):\n    return x")).digest
    assert read_code(code).digest == plain
    # The flag of Python 3.14.
    assert read_code(code.replace(co_flags=code.co_flags | 0x4000000)).digest == plain


def test_names_of_the_parent_are_read():
    text = "class Child(dict):\n    def build(self, x):\n        return super().update(x)"
    assert ".update" in read_code(code_of(text, "Child")).names


def test_texts_in_tuples_are_found():
    code = code_of("def build(x):\n    return x in ('weights.pth', ('other', 1))")
    assert read_code(code).texts == {"weights.pth", "other"}


@pytest.mark.parametrize("line", ["x += 1", "x[0] = 1", "del x[0]", "add(x, 1, out=x)"])
def test_code_that_may_write_items(line):
    assert read_code(code_of(f"def build(x):\n    {line}\n    return x")).writes_items
    inner = f"def build(x):\n    def inner(x):\n        {line}\n    return inner"
    assert read_code(code_of(inner)).writes_items


def test_code_that_writes_no_items():
    assert not read_code(code_of("def build(x):\n    y = x[0] + 1\n    return -y")).writes_items
