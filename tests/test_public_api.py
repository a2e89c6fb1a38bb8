"""The public surface: its names, their docstrings, their signatures, the version."""

import ast
import importlib.metadata
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import lazy_loader
import pytest
from numpydoc.validate import validate

import sklearn_featx
from sklearn_featx import exceptions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# Classes and functions.
OBJECTS = [name for name in sklearn_featx.__all__ if name != "exceptions"]


def checks():
    """Numpydoc's checks to leave out; the table says "all", and then the exceptions from it."""
    first, *left_out = PROJECT["tool"]["numpydoc_validation"]["checks"]
    assert first == "all"
    return set(left_out)


def public_methods(cls):
    """Names of the methods that this package defines on a class, its bases included."""
    return sorted(
        name
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and member.__module__.startswith("sklearn_featx")
    )


def documented():
    """Import paths of everything public that has a docstring of its own."""
    for name in OBJECTS:
        yield f"sklearn_featx.{name}"
        if inspect.isclass(member := getattr(sklearn_featx, name)):
            yield from (f"sklearn_featx.{name}.{method}" for method in public_methods(member))
    yield from (f"sklearn_featx.exceptions.{name}" for name in exceptions.__all__)


def functions():
    """Every public function and method."""
    for path in documented():
        target = sklearn_featx
        for part in path.split(".")[1:]:
            target = getattr(target, part)
        if inspect.isfunction(target):
            yield pytest.param(target, id=path)
        elif inspect.isclass(target) and "__init__" in vars(target):
            yield pytest.param(target.__init__, id=f"{path}.__init__")


def test_the_stub_names_all_exactly_and_sorted():
    stub = Path(sklearn_featx.__file__).with_suffix(".pyi").read_bytes()
    # lazy_loader reads it in the encoding of the machine.
    assert stub.isascii()
    stub = ast.parse(stub)
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    imported = sorted(alias.name for node in imports for alias in node.names)
    (listed,) = (node.value for node in stub.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(listed) == sorted(imported)
    assert dir(sklearn_featx) == sklearn_featx.__all__ == sorted(imported)


@pytest.mark.parametrize("name", OBJECTS)
def test_each_name_is_that_of_its_home(name):
    value = getattr(sklearn_featx, name)
    assert value.__name__ == name
    assert value.__module__.startswith("sklearn_featx.")


def test_errors_can_be_named_before_anything_else_is_used():
    script = (
        "import sys, sklearn_featx\n"
        "print(sklearn_featx.exceptions.ImageError.__name__, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ImageError", "False"]


def test_who_extracts_does_not_import_what_trains():
    # torchvision and training import torch._dynamo, PyTorch's compiler, which takes a second.
    script = (
        "import sys, sklearn_featx\n"
        "import numpy as np\n"
        "slow = {'skorch', 'sklearn_featx.estimators._finetune_classifier', 'torchvision',"
        " 'torch._dynamo', 'timm'}\n"
        "print({n for n in sys.modules if n.startswith('sklearn_featx.')})\n"
        "extractor = sklearn_featx.PretrainedFeatureExtractor(cache=False)\n"
        "print(extractor.fit_transform(np.zeros((1, 8, 8, 3), np.uint8)).shape)\n"
        "print(slow & {*sys.modules})\n"
        "sklearn_featx.FineTuneClassifier\n"
        "print(sorted(slow & {*sys.modules}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "set()",
        "(1, 1280)",
        "set()",
        "['sklearn_featx.estimators._finetune_classifier', 'skorch']",
    ]


def test_the_version_is_there_before_any_module_is_imported(monkeypatch):
    # With EAGER_IMPORT in the environment, lazy_loader imports all modules at once.
    spec = importlib.util.spec_from_file_location("sklearn_featx", sklearn_featx.__file__)
    module = importlib.util.module_from_spec(spec)
    seen = []

    def attach(*_):
        seen.append(vars(module).get("__version__"))
        return None, None, []

    monkeypatch.setattr(lazy_loader, "attach_stub", attach)
    spec.loader.exec_module(module)
    assert seen == [sklearn_featx.__version__]


def test_exceptions_all_is_exact_and_sorted():
    defined = {name for name, value in vars(exceptions).items() if inspect.isclass(value)}
    assert exceptions.__all__ == sorted(defined)


def test_all_errors_and_warnings_have_one_base():
    for name in exceptions.__all__:
        assert issubclass(
            getattr(exceptions, name), exceptions.FeatxError | exceptions.FeatxWarning
        )


@pytest.mark.parametrize("path", list(documented()))
def test_docstrings_are_numpydoc(path):
    left_out = checks()
    errors = [f"{code}: {text}" for code, text in validate(path)["errors"] if code not in left_out]
    assert not errors


@pytest.mark.parametrize(
    "path", [p for p in documented() if p.count(".") == 1 or ".exceptions." in p]
)
def test_every_public_object_has_an_example(path):
    checked = validate(path)
    assert not [code for code, _ in checked["errors"] if code == "EX01"]
    # As readers write it: from the package, not from the module that defines it.
    modules = re.findall(r"^\s*>>> from (sklearn_featx[\w.]*)", checked["docstring"], re.MULTILINE)
    assert set(modules) <= {"sklearn_featx", "sklearn_featx.exceptions"}


@pytest.mark.parametrize("function", list(functions()))
def test_signatures_are_annotated(function):
    signature = inspect.signature(function)
    bare = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name != "self"
    ]
    assert not bare
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", [n for n in OBJECTS if n[0].isupper() and n != "StageInfo"])
def test_estimators_document_every_parameter_in_order(name):
    from numpydoc.docscrape import ClassDoc

    cls = getattr(sklearn_featx, name)
    expected = [p for p in inspect.signature(cls).parameters if p != "self"]
    assert [p.name for p in ClassDoc(cls)["Parameters"]] == expected


def parameters():
    """The documentation of the parameters of every public class, function and method."""
    from numpydoc.docscrape import ClassDoc, FunctionDoc

    for path in documented():
        target = sklearn_featx
        for part in path.split(".")[1:]:
            target = getattr(target, part)
        if inspect.isclass(target) and ".exceptions." not in path:
            # The fields of a named tuple are made by the package, not by a caller.
            if not issubclass(target, tuple):
                yield pytest.param(target, ClassDoc(target)["Parameters"], id=path)
        elif inspect.isroutine(target):
            yield pytest.param(target, FunctionDoc(target)["Parameters"], id=path)


@pytest.mark.parametrize(("target", "described"), list(parameters()))
def test_documented_defaults_are_those_of_the_signature(target, described):
    defaults = {
        p.name: p.default
        for p in inspect.signature(target).parameters.values()
        if p.default is not p.empty
    }
    # scikit-learn's convention for a y that is not used.
    if any(p.type == "ignored" for p in described):
        del defaults["y"]
    documented = {
        p.name: ast.literal_eval(p.type.partition("default=")[2])
        for p in described
        if "default=" in p.type
    }
    assert documented == defaults


@pytest.mark.parametrize(("target", "described"), list(parameters()))
def test_documented_choices_are_those_of_the_type(target, described):
    annotated = target.__init__ if inspect.isclass(target) else target
    types = get_type_hints(annotated, localns=vars(sklearn_featx)) if described else {}
    for parameter in described:
        choices = re.match(r"\{(.*)\}", parameter.type)
        if choices:
            typed = {choice for choice in literals(types[parameter.name]) if choice is not None}
            assert set(ast.literal_eval(f"[{choices[1]}]")) == typed, parameter.name


def literals(annotation):
    """Yield the values of the `Literal` types within a type."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from literals(part)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PretrainedFeatureExtractor", {}),
        ("PretrainedFeatureExtractor", {"layer": "all", "normalize": "layer", "on_error": "nan"}),
        ("FineTuneClassifier", {"unfreeze_depth": 0}),
        ("FineTuneClassifier", {"on_error": "nan", "head_layers": "all", "early_stopping": True}),
        ("FineTuneClassifier", {"augment": "light", "image_size": 16}),
        ("FineTuneRegressor", {"unfreeze_depth": 0}),
        ("FineTuneRegressor", {"early_stopping": True}),
    ],
)
def test_learned_attributes_are_documented(name, settings, small_net, digits):
    from numpydoc.docscrape import ClassDoc

    cls = getattr(sklearn_featx, name)
    quick = {} if name == "PretrainedFeatureExtractor" else {"max_epochs": 1, "C": 1.0}
    fitted = cls(small_net, **quick, **settings).fit(*digits)
    documented = {name for a in ClassDoc(cls)["Attributes"] for name in a.name.split(", ")}
    learned = {key for key in vars(fitted) if key.endswith("_") and not key.startswith("_")}
    assert learned
    assert learned <= documented


def test_shared_parameters_of_the_fine_tuners_have_one_description():
    from numpydoc.docscrape import ClassDoc

    classifier, regressor = (
        {p.name: p for p in ClassDoc(cls)["Parameters"]}
        for cls in (sklearn_featx.FineTuneClassifier, sklearn_featx.FineTuneRegressor)
    )
    # The regressor refers to the classifier for the literature and examples.
    differ = {"unfreeze_depth", "head_layers", "C", "augment", "net_params", "on_error"}
    for name, own in regressor.items():
        assert own.type == classifier[name].type
        if name not in differ:
            assert own.desc == classifier[name].desc, name


def test_the_classifier_has_few_parameters():
    assert len(sklearn_featx.FineTuneClassifier().get_params(deep=False)) <= 35


def test_version_has_one_home():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "sklearn_featx/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {sklearn_featx.__version__}\n" in citation


def test_version_is_that_of_the_installed_metadata():
    try:
        installed = importlib.metadata.version("sklearn-featx")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")
    assert installed == sklearn_featx.__version__
