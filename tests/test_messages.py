"""Messages: every wrong input is refused by this package, in one short line.

The sweep calls each public function and estimator with what people pass by mistake. An error must
be raised by this package or by scikit-learn's validation, not by numpy, torch or the system; its
message is one line of at most 300 characters, whatever the length of the input.
"""

import base64
import io
import logging
import re
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import sklearn_featx
from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
    TrainingHistoryDisplay,
    UnfreezeDepthDisplay,
    backbone_stages,
    exceptions,
    layer_sweep,
    plan_search,
    precompute,
    unfreeze_depths,
)
from sklearn_featx._messages import LONGEST, cause, listed, said, short, shown
from sklearn_featx.images import decode

LONG = "x" * 10_000
PACKAGES = (str(Path(sklearn_featx.__file__).parent), "/sklearn/", "\\sklearn\\")
# What Python raises where nobody has looked at the argument.
CARELESS = (AttributeError, KeyError, IndexError, AssertionError, NotImplementedError, OSError)


def refused(call, *arguments, **named):
    """Return the message of a call that must fail; it must be a message of this package."""
    with pytest.raises(Exception, match=r"\S") as caught:
        call(*arguments, **named)
    message = str(caught.value)
    where = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    told = f"{caught.type.__name__} of {where}: {message[:500]}"
    assert any(package in where for package in PACKAGES), f"raised elsewhere: {told}"
    careless = issubclass(caught.type, CARELESS) and not issubclass(caught.type, NotFittedError)
    assert not careless, told
    assert "\n" not in message, told
    assert 10 <= len(message) <= 300, f"{len(message)} characters: {told}"
    return message


def net(n_channels=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(n_channels, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


NET = net()
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])
PICTURE = Image.fromarray(IMAGES[0])


def png():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


BASE64 = base64.b64encode(png()).decode()


class BadDataset:
    def __len__(self):
        return 3

    def __getitem__(self, i):
        raise KeyError(LONG)


class Stream(IterableDataset):
    def __iter__(self):
        yield from IMAGES


WRONG_X = {
    "None": None,
    "a number": 5,
    "a path": "a.png",
    "a Path": Path("a.png"),
    "bytes": png(),
    "one picture": PICTURE,
    "one array": IMAGES[0],
    "base64": BASE64,
    "base64 as bytes": [BASE64.encode()] * 2,
    "empty list": [],
    "empty array": np.zeros((0, 12, 12, 3), np.uint8),
    "no pixels": np.zeros((2, 0, 12, 3), np.uint8),
    "dict": {"image": [1, 2]},
    "list of dicts": [{"image": LONG}] * 2,
    "set": {"a.png"},
    "generator": (image for image in IMAGES),
    "list of generators": [(image for image in IMAGES)],
    "map": map(str, ["a.png"]),
    "iterator": iter(["a.png"]),
    "range": range(5),
    "DataLoader": DataLoader(TensorDataset(torch.zeros(4, 3, 12, 12))),
    "IterableDataset": Stream(),
    "dataset that raises": BadDataset(),
    "batches": [torch.zeros(4, 3, 12, 12)] * 2,
    "objects of 3 axes": np.full((2, 2, 2), "x", object),
    "objects of 2 columns": np.array([[1, "a"], [2, "b"]], object),
    "ragged lists": [[[1, 2], [3]], [[4, 5], [6, 7]]],
    "ragged rows": [[1, 2, 3], [1, 2]],
    "two columns of strings": np.array([["a", "b"], ["c", "d"]]),
    "bytes in an array": np.array([b"a", b"b"]),
    "strings of 3 axes": np.full((2, 3, 3), "7"),
    "floats to 255": IMAGES.astype(float),
    "negative": -IMAGES.astype(float),
    "NaN": np.full((3, 12, 12, 3), np.nan),
    "infinity": np.full((3, 12, 12, 3), np.inf),
    "complex": IMAGES.astype(complex),
    "list of complex": [IMAGES[0].astype(complex)] * 2,
    "dates": np.zeros((3, 12, 12), "M8[s]"),
    "records": np.zeros(3, dtype=[("a", "i4")]),
    "vector": np.zeros(5),
    "scalar": np.array(3.0),
    "5 axes": np.zeros((2, 3, 4, 5, 6)),
    "5 channels": np.zeros((2, 12, 12, 5)),
    "ambiguous": np.zeros((2, 3, 12, 3)),
    "no file": ["nowhere.png"] * 2,
    "too long a name": [LONG] * 2,
    "null byte": ["a\0b.png"] * 2,
    "empty name": [""] * 2,
    "a folder": [str(Path(__file__).parent)] * 2,
    "a text file": [__file__] * 2,
    "a device": ["/dev/null"] * 2,
    "URL": [f"http://127.0.0.1:9/{LONG}"] * 2,
    "Nones": [None] * 2,
    "NaNs": [float("nan")] * 2,
    "NaT": pd.Series([pd.NaT, pd.NaT]),
    "one None": [IMAGES[0], None],
    "numbers": [1, 2, 3],
    "booleans": [True, False],
    "classes": [int, str],
    "modules": [NET] * 2,
    "no image": [b"x" * 5000] * 2,
    "empty bytes": [b""] * 2,
    "dataframe of 2 columns": pd.DataFrame({"a": ["x"], "b": ["y"]}),
    "dataframe of long names": pd.DataFrame({LONG: ["x"], LONG + "y": ["y"]}),
    "empty dataframe": pd.DataFrame(),
    "empty series": pd.Series([], dtype=object),
    "sparse": scipy.sparse.eye(4),
    "masked": np.ma.masked_array(IMAGES, mask=IMAGES > 3),
    "sparse tensor": torch.zeros(2, 12, 12).to_sparse(),
    "list of sparse tensors": [torch.zeros(12, 12).to_sparse()] * 2,
    "tensor without values": torch.zeros(2, 3, 12, 12, device="meta"),
    "complex tensor": torch.zeros(2, 3, 12, 12, dtype=torch.complex64),
    "function": png,
    "class": np.ndarray,
    "ellipsis": ...,
}


@pytest.mark.parametrize("name", WRONG_X)
class TestX:
    def test_extractor(self, name):
        refused(PretrainedFeatureExtractor(NET).transform, WRONG_X[name])

    def test_extractor_that_reports_failures(self, name):
        extractor = PretrainedFeatureExtractor(NET, on_error="nan", cache=False)
        # A good image beside a bad one is enough, and ragged lists have no readable file to tell.
        if name not in ("one None", "ragged lists"):
            refused(extractor.fit, WRONG_X[name])

    def test_fine_tuner(self, name):
        # Of the length of most of them: X is refused first.
        labels = [0, 1]
        refused(FineTuneClassifier(NET, unfreeze_depth=0, C=1.0).fit, WRONG_X[name], labels)

    def test_functions(self, name):
        extractor = PretrainedFeatureExtractor(NET)
        refused(precompute, extractor, WRONG_X[name])
        refused(layer_sweep, extractor, LogisticRegression(), WRONG_X[name], LABELS)
        refused(plan_search, extractor, WRONG_X[name])


def test_sixty_kinds():
    assert len(WRONG_X) >= 60


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights files: of another network, cut off, of text, empty, of a whole module."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(NET.state_dict(), folder / "other.pth")
    torch.save(NET, folder / "module.pth")
    (folder / "cut.pth").write_bytes((folder / "other.pth").read_bytes()[:200])
    (folder / "text.pth").write_text("hello")
    (folder / "empty.pth").touch()
    (folder / "bad.safetensors").write_bytes(b"\x10" * 100)
    (folder / "folder.pth").mkdir()
    return folder


WEIGHTS = ["other.pth", "module.pth", "cut.pth", "text.pth", "empty.pth", "bad.safetensors"]
WEIGHTS += ["folder.pth", "nowhere.pth"]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("backbone", ["resnet18", "timm/resnet18"])
def test_wrong_weights_files(name, backbone, files):
    message = refused(backbone_stages, backbone, weights=files / name)
    assert name in message


def test_a_weights_file_without_permission(files, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", LONG)

    monkeypatch.setattr(torch, "load", refuse)
    assert "Permission denied" in refused(backbone_stages, "resnet18", weights=files / "other.pth")


def test_an_image_without_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", LONG)

    PICTURE.save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = refused(PretrainedFeatureExtractor(NET).transform, [str(tmp_path / "a.png")])
    assert "a.png" in message
    assert "Permission denied" in message


WRONG_PARAMETERS = {
    "backbone": [
        5, None, LONG, "resnet", "", ["resnet18"], nn.Linear, NET.state_dict(), "timm/nothing",
        f"timm/{LONG}", np.zeros((99, 99)), lambda: 5, lambda a: a, lambda: 1 / 0,
        "quantized_resnet18", "ResNet18", NET.parameters(), "resnet18.pth",
    ],
    "weights": [
        5, LONG, NET.state_dict(), "nowhere.pth", "a\0b", b"x", ["DEFAULT"], True, "", "V9",
    ],
    "layer": [5, "nothing", LONG, [], ["0", 5], ["nothing"], {"a": 1}, "", NET, [["0"]]],
    "pooling": [5, "mean", LONG, ["avg", "mean"], [], True],
    "preprocessing": ["slow", 5, LONG, {"a": 1}],
    "image_size": [
        0, -1, 10**6, "224", 1.5, (1, 2, 3), [], (0, 5), ("a", "b"), (None, None), (1.5, 2.5),
    ],
    "reader": [5, LONG, {"image_shape": (8, 8)}, ImageReader, PretrainedFeatureExtractor()],
    "batch_size": [0, -1, 1.5, "a", LONG],
    "device": ["gpu", "cuda:99", LONG, 5, None, "meta", "", torch.device("cpu")],
    "precision": ["fp16", 5, LONG, torch.float16, None],
    "compile": ["yes", 5, None],
    "engine": ["onnx", 5, LONG],
    "n_jobs": ["a", 1.5, 0, LONG],
    "cache": [5, {"a": 1}],
    "on_error": ["skip", None, LONG],
    "normalize": ["l2", 5],
    "verbose": ["a", -1, LONG],
}  # fmt: skip
WRONG_TRAINING = {
    "unfreeze_depth": [
        -1, 99, "last", LONG, (1,), (3, 1), (0, 99), 1.5, (1, 2, 3), ("a", "b"), None, [],
        list(range(1000)),
    ],
    "granularity": ["layer", 5, LONG, ["nothing"], [5], [LONG]],
    "head": [
        "big", 5, LONG, nn.Linear(3, 2), lambda a, b: 5, lambda a: nn.Linear(3, 2), None,
        nn.ReLU(), lambda a, b: 1 / 0,
    ],
    "head_init": ["zero", 5],
    "C": [0, -1, "a", LONG, None],
    "lr": [0, -1, "a", float("nan"), float("inf"), LONG],
    "max_epochs": [0, 1.5, "a"],
    "batch_size": [0, "a", 1.5],
    "optimizer": [
        "rmsprop", 5, LONG, int, torch.optim.LBFGS, torch.optim.Adam([nn.Parameter(torch.ones(1))])
    ],
    "validation_fraction": [0, 1, "a"],
    "batch_norm": ["no", 5],
    "augment": ["heavy", 5, LONG, [1], lambda image: 5, lambda image: 1 / 0],
    "n_views": [0, "a"],
    "random_state": ["a", -1, 1.5, LONG, np.random.default_rng(0)],
    "callbacks": [5, "a", [5], [("a", 5)], [LONG], [nn.ReLU]],
    "net_params": [
        5, {"nothing": 1}, [1], {LONG: LONG}, {5: 1}, {"lr": LONG}, {"optimizer__lr": LONG},
    ],
    "class_weight": ["a", {5: 1}, 5, LONG, {0: "a", 1: 1}],
}  # fmt: skip


def named(value):
    """Name a value in a test's id: without the address of an object, which differs in each run."""
    return re.sub(r" at 0x\w+", "", shown(value), flags=re.IGNORECASE)


def cases(table):
    for parameter, values in table.items():
        for value in values:
            yield pytest.param(parameter, value, id=f"{parameter}-{named(value)}")


@pytest.mark.parametrize(("parameter", "value"), list(cases(WRONG_PARAMETERS)))
def test_parameters_of_the_extractor(parameter, value):
    backbone = "resnet18" if parameter == "weights" else NET
    extractor = PretrainedFeatureExtractor(
        **{"backbone": backbone, "cache": False, parameter: value}
    )
    message = refused(extractor.fit_transform, IMAGES)
    assert re.search(parameter + "|expected|Expected", message)


WRONG_READING = {
    "image_shape": [5, (1,), (0, 0), "ab", (8, 8, 8, 8), (-1, 1), ("a", "b"), [LONG], ()],
    "value_range": [5, (1,), (1, 0), ("a", "b"), [LONG, LONG], (0, float("inf")), "ab", ()],
}  # fmt: skip


@pytest.mark.parametrize(("parameter", "value"), list(cases(WRONG_READING)))
def test_parameters_of_the_reader(parameter, value):
    X = IMAGES.reshape(6, -1) if parameter == "image_shape" else IMAGES / 255
    reader = ImageReader(**{parameter: value})
    extractor = PretrainedFeatureExtractor(NET, cache=False, reader=reader)
    message = refused(extractor.fit_transform, X)
    assert re.search(parameter + "|expected|Expected", message)


@pytest.mark.parametrize(("parameter", "value"), list(cases(WRONG_TRAINING)))
def test_parameters_of_the_fine_tuner(parameter, value):
    settings = {"unfreeze_depth": 1, "C": 1.0, "max_epochs": 1, "random_state": 0}
    classifier = FineTuneClassifier(NET, **{**settings, parameter: value})
    assert parameter in refused(classifier.fit, IMAGES, LABELS)


WRONG_Y = {
    "None": None, "short": LABELS[:3], "long": LABELS.tolist() * 2, "a number": 5, "empty": [],
    "NaN": [0, 1, 0, 1, 0, np.nan], "3 axes": np.zeros((6, 2, 2)), "ragged": [[1], [2, 3]] * 3,
    "dicts": [{"a": LONG}] * 6, "generator": (i for i in LABELS), "set": {0, 1},
    "complex": np.full(6, 1j), "infinity": [np.inf] * 6, "one string": "ababab", "images": IMAGES,
    "tuples": [("a", "b")] * 6, "tensor": torch.zeros(6, 2, 3), "Nones": [None] * 6,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_Y)
class TestTargets:
    def test_labels(self, name):
        refused(FineTuneClassifier(NET, unfreeze_depth=0, C=1.0).fit, IMAGES, WRONG_Y[name])

    def test_numbers(self, name):
        refused(FineTuneRegressor(NET, unfreeze_depth=0, C=1.0).fit, IMAGES, WRONG_Y[name])

    def test_weights(self, name):
        if name in ("None", "a number"):
            pytest.skip("one weight for all rows")
        classifier = FineTuneClassifier(NET, unfreeze_depth=0, C=1.0)
        refused(classifier.fit, IMAGES, LABELS, sample_weight=WRONG_Y[name])


def test_long_labels_for_numbers():
    refused(FineTuneRegressor(NET, unfreeze_depth=0, C=1.0).fit, IMAGES, [LONG] * 6)


@pytest.mark.parametrize(
    "classes", [None, 5, [], [0], [None] * 2, [[0, 1]] * 2, "ab", [LONG, "y"]], ids=named
)
def test_classes_of_partial_fit(classes):
    refused(FineTuneClassifier(NET, C=1.0).partial_fit, IMAGES, LABELS, classes=classes)


@pytest.mark.parametrize(
    "estimator",
    [None, 5, LONG, FineTuneClassifier, NET, [1], LogisticRegression(),
     make_pipeline(LogisticRegression())],
    ids=named,
)  # fmt: skip
def test_functions_of_estimators(estimator):
    refused(plan_search, estimator, IMAGES, LABELS)
    refused(precompute, estimator, IMAGES)
    refused(layer_sweep, estimator, LogisticRegression(), IMAGES, LABELS)


@pytest.mark.parametrize("value", [["nothing"], 5, "avg", [], [5], [LONG], {"a": 1}], ids=named)
def test_lists_of_layer_sweep(value):
    arguments = (PretrainedFeatureExtractor(NET), LogisticRegression(), IMAGES, LABELS)
    refused(layer_sweep, *arguments, layers=value)
    refused(layer_sweep, *arguments, poolings=value)


@pytest.mark.parametrize("y", [None, LABELS[:3], "a", 5], ids=named)
def test_targets_of_layer_sweep(y):
    refused(layer_sweep, PretrainedFeatureExtractor(NET), LogisticRegression(), IMAGES, y, cv=2)


@pytest.mark.parametrize("backbone", WRONG_PARAMETERS["backbone"], ids=named)
def test_backbones_of_functions(backbone):
    refused(backbone_stages, backbone)
    refused(unfreeze_depths, backbone)


@pytest.mark.parametrize("value", ["layer", 5, LONG, ["nothing"], [5], [LONG], None], ids=named)
def test_granularities_of_functions(value):
    refused(backbone_stages, NET, granularity=value)


@pytest.mark.parametrize(
    "shape", [5, (3,), (3, 0, 0), ("a", 2, 2), (4, 64, 64), [], "abc"], ids=named
)
def test_shapes_of_backbone_stages(shape):
    refused(backbone_stages, NET, input_shape=shape)


@pytest.mark.parametrize("value", ["a", -1, 1.5, [1]], ids=named)
def test_depths_of_unfreeze_depths(value):
    refused(unfreeze_depths, NET, max_depth=value)


@pytest.mark.parametrize("path", [5, None, "", [1], b"x"], ids=named)
def test_paths_of_stores(path):
    refused(FeatureStore, path)


@pytest.mark.parametrize("size", [5, "a", -1, 0, None, LONG, "1e9", [1]], ids=named)
def test_sizes_of_stores(size, tmp_path):
    refused(FeatureStore, tmp_path, max_size=size)


@pytest.mark.parametrize("path", [LONG, "a\0b"], ids=named)
def test_a_store_that_cannot_be_is_a_warning(path):
    extractor = PretrainedFeatureExtractor(NET, cache=path)
    with pytest.warns(exceptions.StoreWarning, match="not cached") as record:
        assert extractor.transform(IMAGES).shape == (6, 4)
    assert all(len(str(warning.message)) <= 300 for warning in record)


@pytest.mark.parametrize("estimator", [FineTuneClassifier(NET), LogisticRegression()], ids=named)
def test_displays_of_what_is_not_fitted(estimator):
    refused(TrainingHistoryDisplay.from_estimator, estimator)
    refused(UnfreezeDepthDisplay.from_search, estimator)


class TestInsideTheNetwork:
    """Errors of a network's own `forward`: backbone, size, layer, first line of the cause."""

    @pytest.mark.parametrize("n_channels", [3, 1])
    def test_a_size_that_does_not_fit(self, n_channels, capfd, caplog):
        module = nn.Sequential(nn.Conv2d(n_channels, 4, 3), nn.Flatten(), nn.Linear(400, 2))
        extractor = PretrainedFeatureExtractor(module, image_size=13)
        with caplog.at_level(logging.DEBUG):
            message = refused(extractor.fit, IMAGES)
        assert "'sequential' cannot take 13 x 13 pixels" in message
        assert "layer '2', RuntimeError: " in message
        assert capfd.readouterr() == ("", "")
        assert "Traceback" not in caplog.text

    def test_an_operation_is_named_by_the_layer_before_it(self):
        class Positions(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Conv2d(3, 4, 4, 4)
                self.positions = nn.Parameter(torch.zeros(1, 4, 9))

            def forward(self, x):
                return (self.embed(x).flatten(2) + self.positions).mean(2)

        message = refused(PretrainedFeatureExtractor(Positions(), image_size=16).fit, IMAGES)
        assert "after layer 'embed', RuntimeError: The size of tensor" in message

    def test_wrong_channels_of_a_preprocessing(self):
        extractor = PretrainedFeatureExtractor(
            "resnet18", weights=None, preprocessing=lambda _: np.zeros((4, 32, 32))
        )
        with pytest.warns(exceptions.RandomWeightsWarning):
            message = refused(extractor.fit, IMAGES)
        assert "32 x 32 pixels of 4 channels" in message
        assert "made for 224 x 224 pixels of 3 channels" in message

    def test_values_that_a_network_refuses(self):
        class Picky(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(1))

            def forward(self, x):
                if x.max() > 0.5:
                    raise RuntimeError(f"too bright\n{LONG}")
                return x.mean((2, 3)) * self.scale

        with pytest.warns(exceptions.CutWarning):
            message = refused(PretrainedFeatureExtractor(Picky()).transform, IMAGES)
        assert "'picky' failed on rows of shape" in message
        assert "RuntimeError: too bright" in message


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"%PDF-1.7\n%", "PDF"),
        (b"<!DOCTYPE html><html>404", "Download the file again"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg>", "SVG"),
        (b"PK\x03\x04" + bytes(30), "Unpack"),
        (b"\x93NUMPY\x01\0", "numpy.load"),
        (b"\0\0\0\x20ftypisom" + bytes(30), "video"),
        (bytes(128) + b"DICM" + bytes(30), "DICOM file has no pixels"),
        (BASE64.encode(), "as text, data.decode()"),
    ],
    ids=lambda value: short(str(value)),
)
def test_what_a_file_is_instead_of_an_image(content, hint):
    assert hint in refused(decode, content)


class TestWords:
    @pytest.mark.parametrize("value", [LONG, LONG.encode(), [LONG] * 50, {"a": LONG}, NET, IMAGES])
    def test_a_value_has_at_most_100_characters(self, value):
        assert len(shown(value)) <= LONGEST
        assert "\n" not in shown(value)

    def test_short_values_are_as_they_are(self):
        assert shown("a.png") == "'a.png'"
        assert shown((1, 2)) == "(1, 2)"

    def test_both_ends_of_a_long_name_are_shown(self):
        words = shown(f"/first/{LONG}/last.png")
        assert words.startswith("'/first/xxx")
        assert words.endswith("xxx/last.png'")

    def test_a_list_ends_at_whole_words(self):
        assert listed([]) == ""
        assert listed(["a", "b"]) == "a, b"
        words = [f"word number {i}" for i in range(20)]
        text = listed(words)
        assert text == ", ".join([*words[:5], "...", words[-1]])
        assert len(text) <= LONGEST
        assert len(listed([LONG])) <= LONGEST
        assert len(listed([LONG, LONG])) <= LONGEST

    def test_an_object_that_cannot_be_shown(self):
        class Broken:
            def __repr__(self):
                raise RuntimeError

        assert "Broken" in shown(Broken())

    def test_the_first_line_of_an_error_counts(self):
        assert cause(RuntimeError("\n\x1b[1mfirst\x1b[0m\nsecond")) == "RuntimeError: first"
        assert cause(KeyError()) == "KeyError"
        assert said(OSError(36, "File name too long", LONG)) == "File name too long"
