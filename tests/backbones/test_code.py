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


OLD = {
    "alias": "row = KEPT",
    "item": "row = KEPT[0]",
    "loop": "for row in KEPT: pass",
    "pair": "row, other = KEPT, 1",
    "second of a pair": "other, row = 1, KEPT",
    "either": "row = KEPT or []",
    "condition": "row = KEPT if x else []",
    "expression": "(row := KEPT)",
    "alias of an alias": "other = KEPT; row = other",
    "attribute": "row = x.kept",
}
NEW = ("row = [0]", "row = list(KEPT)", "row = KEPT + [1]", "row = 0")


@pytest.mark.parametrize("kind", OLD)
def test_operators_in_place_on_old_values(kind):
    for captured in ("", "\n    own = lambda: row"):
        code = code_of(f"def build(x):\n    {OLD[kind]}\n    row += [1]{captured}\n    return x")
        assert read_code(code).writes_items


@pytest.mark.parametrize("line", NEW)
def test_operators_in_place_on_new_values(line):
    code = code_of(f"def build(x):\n    {line}\n    row += [1]\n    x /= 2\n    return x")
    assert not read_code(code).writes_items
