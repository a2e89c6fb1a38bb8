"""Wrong arguments are refused by name and value, before rows are computed or found in a cache."""

import re

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    EmbeddingDisplay,
    FineTuneClassifier,
    HeatMapDisplay,
    ImageReader,
    MistakesDisplay,
    NeighborsDisplay,
    PretrainedFeatureExtractor,
    TrainingHistoryDisplay,
    UnfreezeDepthDisplay,
    backbone_stages,
    heat_maps,
    image_groups,
    label_issues,
    layer_sweep,
    nearest_images,
    plan_search,
    precompute,
)
from sklearn_featx.exceptions import InputError
from sklearn_featx.inspection import report_page


@pytest.fixture(scope="module")
def model(digits):
    X, y = digits[0][:20], digits[1][:20]
    extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32)
    return make_pipeline(extractor, LogisticRegression(max_iter=1000)).fit(X, y), X, y


def test_no_threads_are_refused_where_all_rows_are_cached(small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net, cache=True)
    extractor.fit_transform(digits[0][:4])
    with pytest.raises(ValueError, match=r"'n_jobs' parameter .* Got 0 instead"):
        extractor.set_params(n_jobs=0).transform(digits[0][:4])


def test_a_bag_pooling_is_named_once(digits):
    extractor = PretrainedFeatureExtractor(reader=ImageReader(bag_pooling="mean+max+mean"))
    with pytest.raises(InputError, match=r"bag_pooling='mean\+max\+mean': 'mean' occurs twice"):
        extractor.fit(digits[0][:2])


def test_the_label_of_a_class_weight_that_y_lacks_is_named(small_net, digits):
    classifier = FineTuneClassifier(small_net, unfreeze_depth=0, C=1.0, class_weight={9: 2.0})
    wanted = "class_weight={9: 2.0}: y has no label 9. Its labels are [0, 1]."
    with pytest.raises(ValueError, match=re.escape(wanted)):
        classifier.fit(digits[0][:10], np.arange(10) % 2)


@pytest.mark.parametrize("shape", [(3, -1, 4), (3, "a", 4)])
def test_the_shape_of_backbone_stages_is_named(small_net, shape):
    with pytest.raises(ValueError, match=re.escape(f"input_shape={shape}: expected whole")):
        backbone_stages(small_net, input_shape=shape)


@pytest.mark.parametrize("count", [0, -1, 1.5, "many"])
def test_counts_of_inspection_are_named(model, count):
    fitted, X, _ = model
    with pytest.raises(ValueError, match=f"n_samples={count!r}: expected"):
        heat_maps(fitted, X[:2], method="shapley", n_samples=count)
    with pytest.raises(ValueError, match=f"n_neighbors={count!r}: expected"):
        nearest_images(fitted, X[:2], X, n_neighbors=count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_mistakes": -1}, "n_mistakes=-1: expected a whole number of at least 0"),
        ({"thumbnail_size": 0}, "thumbnail_size=0: expected a whole number of at least 1"),
        ({"reader": "x"}, "reader='x': expected an ImageReader"),
    ],
)
def test_arguments_of_mistakes_are_named(arguments, message):
    X, y = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=message):
        MistakesDisplay.from_predictions(X, y, y, **arguments)


def test_arguments_of_other_displays_are_named(model):
    fitted, X, _ = model
    with pytest.raises(ValueError, match="thumbnail_size=0: expected a whole number"):
        EmbeddingDisplay.from_estimator(fitted[0], X, thumbnail_size=0)
    display = HeatMapDisplay(heat_maps(fitted, X[:1]), [None])
    for opacity in (3, "x"):
        with pytest.raises(ValueError, match=f"opacity={opacity!r}: expected a number from 0 to 1"):
            display.plot(opacity=opacity)


@pytest.mark.parametrize("verbose", [-1, "x"])
def test_the_progress_of_precompute_is_named(small_net, verbose):
    extractor = PretrainedFeatureExtractor(small_net)
    with pytest.raises(ValueError, match=f"verbose={verbose!r}: expected 0, or 1"):
        precompute(extractor, np.zeros((2, 8, 8), np.uint8), verbose=verbose)


def test_lengths_that_differ_are_named():
    pytest.importorskip("cleanlab")
    with pytest.raises(ValueError, match="probabilities has 3 entries, and y has 4"):
        label_issues([0, 1, 0, 1], np.full((3, 2), 0.5))


@pytest.mark.parametrize("value", ["x", "False", None, 1])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("nested", lambda own, X, y, **flag: layer_sweep(own, LogisticRegression(), X, y, **flag)),
        ("near_copies", lambda own, X, y, **flag: plan_search(own, X, **flag)),
        ("timed", lambda own, X, y, **flag: plan_search(own, X, **flag)),
        ("raw", lambda own, X, y, **flag: image_groups(["a-1.png"], by=r"a-(\d)", **flag)),
    ],
)
def test_a_flag_is_true_or_false(small_net, digits, name, call, value):
    extractor = PretrainedFeatureExtractor(small_net)
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected True or False"):
        call(extractor, digits[0][:4], digits[1][:4], **{name: value})


def test_options_of_image_groups_are_named_by_their_type():
    with pytest.raises(InputError, match="storage_options is of type str") as caught:
        image_groups(["a-1.png"], by=r"a-(\d)", storage_options="secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [0, 1]}, "y has 2 entries, and X has 4 images"),
        ({"groups": [0, 1]}, "groups has 2 entries, and X has 4 images"),
        ({"scoring": "x"}, r"scoring='x': expected a name of sklearn\.metrics"),
        ({"scoring": ["accuracy"]}, r"scoring=\['accuracy'\]: expected a name"),
    ],
)
def test_arguments_of_layer_sweep_are_named_before_features(
    monkeypatch, digits, arguments, message
):
    monkeypatch.setattr("sklearn_featx.model_selection._layer_sweep.activations", None)
    y = arguments.pop("y", [0, 1, 0, 1])
    with pytest.raises(ValueError, match=message):
        layer_sweep(
            PretrainedFeatureExtractor(), LogisticRegression(), digits[0][:4], y, **arguments
        )


def test_a_class_is_no_estimator_of_layer_sweep(digits):
    with pytest.raises(TypeError, match="expected an estimator for the features"):
        layer_sweep(PretrainedFeatureExtractor(), LogisticRegression, digits[0][:4], [0, 1, 0, 1])


def test_the_length_of_y_of_plan_search_is_named(small_net, digits):
    with pytest.raises(ValueError, match="y has 2 entries, and X has 4 images"):
        plan_search(PretrainedFeatureExtractor(small_net), digits[0][:4], [0, 1], cv=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"projection": "pca"}, r"projection='pca': expected a transformer .* or None\.$"),
        ({"projection": PCA}, "projection=<class .*: expected a transformer"),
        ({"projection": LogisticRegression()}, r"projection=LogisticRegression\(\): expected a tr"),
        ({"projection": PCA(99)}, r"projection=PCA\(n_components=99\) fails on 20 rows of 40 feat"),
        ({"columns": "x"}, "columns='x': expected a dict of names"),
        ({"columns": [("a", 1)]}, r"columns=\[\('a', 1\)\]: expected a dict"),
        ({"columns": {1: range(20)}}, "columns=.*: expected a dict of names"),
        ({"columns": {"a": np.zeros((20, 2))}}, r"columns\['a'\] has several values for an image"),
        ({"columns": {"a": [[1], [1, 2]] * 10}}, r"columns\['a'\] has several values for an"),
        ({"y": np.zeros((20, 2))}, "y has several values for an image"),
    ],
)
def test_arguments_of_a_map_are_named(model, arguments, message):
    fitted, X, _ = model
    with pytest.raises(ValueError, match=message) as caught:
        EmbeddingDisplay.from_estimator(fitted[0], X, **arguments)
    assert "\n" not in str(caught.value)


def test_the_projection_of_a_map_gives_numbers_for_each_image(model):
    class Constant(PCA):
        def fit_transform(self, X, y=None):
            return self.n_components

    fitted, X, _ = model
    for points, message in (
        (np.zeros((3, 2)), r"gives an array of shape \(3, 2\): a map needs 20 rows"),
        (np.zeros(20), r"gives an array of shape \(20,\)"),
        (np.full((20, 2), np.nan), "gives NaN or infinite values"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingDisplay.from_estimator(fitted[0], X, projection=Constant(points))


def test_the_file_of_a_page_is_named(model, tmp_path):
    display = EmbeddingDisplay.from_estimator(model[0][0], model[1])
    with pytest.raises(
        FileNotFoundError, match=r"path='.*map.html': the page cannot be written: N"
    ):
        display.to_html(tmp_path / "absent" / "map.html")
    with pytest.raises(OSError, match=r"path=.*Pass a file in a folder that exists"):
        display.to_html(tmp_path)
    with pytest.raises(TypeError, match="path=3: expected the path of a file"):
        display.to_html(3)


@pytest.mark.parametrize("ax", ["x", 3, [1]])
def test_what_is_no_axes_is_named_before_anything_is_computed(monkeypatch, ax):
    for module in ("_embedding_display", "_heat_maps", "_neighbors"):
        monkeypatch.setattr(f"sklearn_featx.inspection.{module}.Model", None)
    X, y = np.zeros((2, 8, 8), np.uint8), [0, 1]
    for draw in (
        lambda: EmbeddingDisplay.from_estimator(None, X, ax=ax),
        lambda: HeatMapDisplay.from_estimator(None, X, ax=ax),
        lambda: NeighborsDisplay.from_estimator(None, X, X, ax=ax),
        lambda: MistakesDisplay.from_predictions(X, y, y, ax=ax),
        lambda: MistakesDisplay.from_predictions(X, y, y, kind="matrix", ax=ax),
        lambda: TrainingHistoryDisplay([1.0]).plot(ax=ax),
        lambda: UnfreezeDepthDisplay([0], [0.8], [0.1], [1.0], [0]).plot(ax=ax),
    ):
        with pytest.raises(ValueError, match=re.escape(f"ax={ax!r}: expected matplotlib Axes")):
            draw()


def test_several_axes_for_one_plot_are_refused():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2)
    with pytest.raises(ValueError, match="expected one matplotlib Axes, or None"):
        TrainingHistoryDisplay([1.0]).plot(ax=axes)
    pyplot.close(figure)


def test_lengths_of_histories_and_depths_are_named():
    with pytest.raises(ValueError, match="valid_loss has 1 entries, and train_loss has 2 epochs"):
        TrainingHistoryDisplay([1.0, 0.5], [1.0]).plot()
    with pytest.raises(ValueError, match="std_scores has 1 entries, and depths has 2 depths"):
        UnfreezeDepthDisplay([0, 1], [0.8, 0.9], [0.1], [1.0, 2.0], [0, 9]).plot()


@pytest.mark.parametrize("view", [["network"], {}, "x", None])
def test_the_view_of_a_heat_map_is_named(model, view):
    with pytest.raises(ValueError, match=re.escape(f"view={view!r} must be one of")):
        HeatMapDisplay.from_estimator(model[0], model[1][:1], view=view)


def test_classes_are_a_list(model):
    _, X, y = model
    with pytest.raises(ValueError, match="classes='x': expected a list"):
        MistakesDisplay.from_predictions(X, y, y, classes="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_neighbors": "x"}, "n_neighbors='x': expected a whole number of at least 0"),
        ({"paths": "a.png"}, r"paths='a\.png': expected a list of files"),
        ({"known": "a.png"}, r"known='a\.png': expected a list of files"),
    ],
)
def test_arguments_of_a_report_are_named(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        report_page(model[0], **({"paths": ["a.png"]} | arguments))
