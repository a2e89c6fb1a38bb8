"""Faults that were reported of other libraries, with the right value."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.manifold import TSNE
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, OneClassSVM

from sklearn_featx import (
    EmbeddingDisplay,
    HeatMapDisplay,
    PretrainedFeatureExtractor,
    heat_maps,
    label_issues,
    near_duplicates,
)
from sklearn_featx.exceptions import FeatxWarning
from sklearn_featx.inspection._report import _overlay

mpl.use("Agg")


@pytest.fixture(scope="module")
def two(digits):
    X, y = digits
    return X[y < 2][:20], y[y < 2][:20]


@pytest.fixture
def pyplot():
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


def halves(n=20):
    """Images whose left half is bright, class 1, or whose right half is, class 0."""
    X, y = np.zeros((n, 16, 16), np.uint8), np.arange(n) % 2
    X[y == 1, :, :8], X[y == 0, :, 8:] = 220, 220
    return X, y


class TestMaps:
    def test_a_negative_score_has_a_map(self, small, two):
        """pytorch-grad-cam 108, 428, captum 740: all zero where the score is negative."""
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        scores = model.decision_function(two[0])
        found = heat_maps(model, two[0])
        assert (scores < 0).any()
        assert (np.ptp(found.maps[scores < 0], axis=(1, 2)) > 0).all()
        np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-6)
        predicted = heat_maps(model, two[0], target=model.predict(two[0]))
        np.testing.assert_allclose(predicted.scores, abs(scores), rtol=1e-5, atol=1e-6)

    def test_maps_are_not_inverted(self, small):
        """tf-explain 176, glasses 300: what speaks for a class lies where the class is."""
        X, y = halves()
        model = make_pipeline(small(normalize="layer", pooling="flatten"), LogisticRegression())
        maps = heat_maps(model.fit(X, y), X, baseline=X).maps
        left, right = maps[:, :, :4].sum((1, 2)), maps[:, :, 4:].sum((1, 2))
        assert ((left + right)[y == 1] > 0).all()
        assert ((left + right)[y == 0] < 0).all()
        zero = heat_maps(model, X, target=0, baseline=X).maps
        np.testing.assert_allclose(zero, -maps)

    def test_red_raises_the_score(self, small, two, pyplot):
        """pytorch-grad-cam 114, 123, MONAI 1796: blue and red in each other's place."""
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        display = HeatMapDisplay.from_estimator(model, two[0][:1])
        drawn = display.axes_[0, 0].images[1]
        low, high = drawn.get_clim()
        assert low == -high
        red, blue = drawn.cmap(drawn.norm([high, low]))[:, :3]
        assert red[0] > 2 * red[2]
        assert blue[2] > 2 * blue[0]
        page = _overlay(np.zeros((1, 2, 3)), np.array([[1.0, -1.0]]), 1.0)[0]
        assert page[0, 0] > page[0, 2]
        assert page[1, 2] > page[1, 0]

    @pytest.mark.filterwarnings("error")
    def test_an_empty_map_is_drawn(self, small, two, pyplot):
        """torch-cam 186, pytorch-grad-cam 108: NaN from a division by the largest value, 0."""
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        model[-1].coef_ = np.zeros_like(model[-1].coef_)
        display = HeatMapDisplay.from_estimator(model, two[0][:2])
        assert (display.heat_maps.maps == 0).all()
        assert np.isfinite(display.axes_[0, 0].images[1].get_array()).all()

    def test_one_output(self, small, two):
        """MONAI 5530, pytorch-grad-cam 325: networks with a single value."""
        model = make_pipeline(small(), Ridge()).fit(two[0], two[1] * 2.0)
        found = heat_maps(model, two[0])
        assert found.target.tolist() == [0] * 20
        np.testing.assert_allclose(found.scores, model.predict(two[0]), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("baseline", [None, "zero", "images"])
    def test_values_of_many_classes_add_up(self, small, digits, baseline):
        """shap 845, 1009, 2785, 2875: sums that are not the score, of one against the rest."""
        X, y = digits
        model = make_pipeline(small(), OneVsRestClassifier(LogisticRegression())).fit(X, y)
        given = X[:9] if baseline == "images" else baseline
        for k in range(3):
            found = heat_maps(model, X[:20], target=k, baseline=given)
            expected = model.decision_function(X[:20])[:, k]
            np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-6)

    def test_columns_for_pairs_of_classes(self, small, digits):
        """A decision function whose columns are pairs has no column of a class."""
        X, y = np.concatenate([digits[0][:20]] * 2), np.arange(40) % 4
        model = make_pipeline(small(), SVC(kernel="linear", decision_function_shape="ovo"))
        with pytest.raises(ValueError, match="6 columns for 4 classes, one for each pair"):
            heat_maps(model.fit(X, y), X[:2])
        model.set_params(svc__decision_function_shape="ovr")
        found = heat_maps(model, X[:2], n_samples=64)
        np.testing.assert_allclose(found.scores, model.decision_function(X[:2]).max(1), rtol=1e-5)


def test_outlier_detectors(small, two):
    """Their labels are -1 and 1, without classes_; the score is positive for inliers."""
    model = make_pipeline(small(), OneClassSVM(gamma=1.0)).fit(two[0])
    found = heat_maps(model, two[0][:3], n_samples=64)
    assert found.target.tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.scores, model.decision_function(two[0][:3]), atol=1e-6)
    outlier = heat_maps(model, two[0][:3], target=-1, n_samples=64)
    np.testing.assert_allclose(outlier.maps, -found.maps, atol=1e-9)


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (MultiOutputClassifier(LogisticRegression()), "exact"),
        (KNeighborsClassifier(), "shapley"),
        (OneVsRestClassifier(LogisticRegression()), "exact"),
    ],
)
def test_several_labels(small, two, head, method):
    """Lists of probabilities, one for each label; two labels are not two classes."""
    Y = np.stack([two[1], np.arange(20) % 2], axis=1)
    model = make_pipeline(small(), head).fit(two[0], Y)
    p = model.predict_proba(two[0][:4])
    p = np.stack([one[:, 1] for one in p], axis=1) if isinstance(p, list) else p
    expected = np.log(p / (1 - p)) if method == "exact" else p
    for k in range(2):
        found = heat_maps(model, two[0][:4], target=k, n_samples=64)
        assert found.method == method
        np.testing.assert_allclose(found.scores, expected[:, k], rtol=1e-4, atol=1e-6)


def test_outputs_of_three_classes_are_refused(small, two):
    Y = np.stack([two[1], np.arange(20) % 3], axis=1)
    model = make_pipeline(small(), KNeighborsClassifier()).fit(two[0], Y)
    with pytest.raises(ValueError, match="some have other than two classes"):
        heat_maps(model, two[0][:2])


@pytest.mark.parametrize("part", ["whole", "extractor"])
def test_frozen_estimators(small, two, part):
    extractor, head = small(), LogisticRegression()
    first = FrozenEstimator(extractor) if part == "extractor" else extractor
    model = make_pipeline(first, head).fit(*two)
    model = FrozenEstimator(model) if part == "whole" else model
    found = heat_maps(model, two[0])
    np.testing.assert_allclose(found.scores, model.decision_function(two[0]), rtol=1e-5, atol=1e-6)


def test_a_wrapped_pipeline_is_refused_with_the_way_out(small, two):
    wrapped = VotingClassifier([("one", make_pipeline(small(), LogisticRegression()))])
    with pytest.raises(TypeError, match=r"VotingClassifier.* belongs behind it"):
        heat_maps(wrapped.fit(*two), two[0][:2])


class TestMapsOfDataSets:
    @pytest.mark.parametrize(
        "labels",
        [
            np.array(["a", None] * 10, dtype=object),
            pd.array(["a", None] * 10, dtype="string"),
            np.array([1.0, np.nan] * 10),
        ],
        ids=["None", "NA", "NaN"],
    )
    def test_missing_labels_are_a_class(self, small, two, labels, pyplot, tmp_path):
        """umap 352, datamapplot 65: points without a label end the plot, or have no color."""
        display = EmbeddingDisplay.from_estimator(small(), two[0], labels)
        assert len(display.ax_.get_legend().get_texts()) == 2
        assert sum(len(c.get_offsets()) for c in display.ax_.collections) == 20
        assert display.to_html(tmp_path / "map.html").stat().st_size > 1000

    def test_a_projection_to_one_column_is_refused(self, small, two):
        with pytest.raises(ValueError, match=r"a map needs \d+ rows and at least two"):
            EmbeddingDisplay.from_estimator(small(), two[0], projection=PCA(1))

    @pytest.mark.parametrize("projection", [None, TSNE(perplexity=2)])
    def test_equal_images_have_no_map(self, small, two, projection, monkeypatch):
        """umap 2: equal points. PCA divides by 0, and scikit-learn's TSNE ends the process."""
        monkeypatch.setattr(TSNE, "fit_transform", None)
        with pytest.raises(
            ValueError, match="the 5 images that can be read have the same features"
        ):
            EmbeddingDisplay.from_estimator(small(), two[0][[3] * 5], projection=projection)

    def test_columns_of_any_type(self, small, two, pyplot, tmp_path):
        """Colors by categories, datetimes and series with their own index."""
        columns = {
            "site": pd.Categorical(["A", "B"] * 10),
            "day": pd.date_range("2020-01-01", periods=20),
            "age": pd.Series(np.arange(20) * 2, index=range(100, 120)),
        }
        display = EmbeddingDisplay.from_estimator(small(), two[0], columns=columns)
        assert display.columns.others["age"].tolist() == list(range(0, 40, 2))
        assert display.to_html(tmp_path / "map.html").read_text("utf-8").count("2020-01-0") == 9


class TestDuplicatesAndLabels:
    def test_gray_photographs_are_not_all_alike(self, photographs):
        """Duplicate-Image-Finder 37: gray pictures are found equal, or not at all."""
        gray = [p.mean(2).astype(np.uint8) for p in photographs]
        parts = [p[top : top + 200, left : left + 200]
                 for p in gray for left in (0, 200, 400) for top in (0, 200)]  # fmt: skip
        extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=64)
        found = near_duplicates(extractor, [*parts, Image.fromarray(parts[2])])
        assert found.pairs.tolist() == [[2, 12]]

    def test_flat_images_of_other_levels_differ(self, small):
        """findimagedupes 21: flat pictures are 100 % equal."""
        flat = np.stack([np.full((16, 16), level, np.uint8) for level in (10, 60, 120, 250)])
        assert near_duplicates(small(), flat, threshold=0.999).pairs.tolist() == []

    def test_copies_of_one_image_alone_need_others(self, photographs):
        """fiftyone 3305: other results for few images. What differs from the mean is noise."""
        random = np.random.default_rng(0)
        scene = photographs[0][:96, :96]
        frames = [np.clip(scene + random.normal(0, 4, scene.shape), 0, 255).astype(np.uint8)
                  for _ in range(6)]  # fmt: skip
        others = [photographs[1][top : top + 96, left : left + 96]
                  for left in (0, 150, 300, 450) for top in (0, 150)]  # fmt: skip
        extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=64)
        for images in (frames, frames[:2], [frames[0], others[0]]):
            with pytest.warns(FeatxWarning, match=f"features of {len(images)} images .* Add other"):
                assert near_duplicates(extractor, images).pairs.tolist() == []
        groups = near_duplicates(extractor, frames + others).groups
        assert set(groups[:6]) == {0}
        assert len(set(groups)) == 9

    @pytest.mark.parametrize("kind", [pd.Series, pd.Categorical, list, np.array])
    def test_labels_of_any_form(self, kind):
        """cleanlab 375, 486: only arrays of the integers 0 to K - 1 are taken."""
        pytest.importorskip("cleanlab")
        p = np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.05], [0.1, 0.9]])
        issues = label_issues(kind(["a", "b", "b", "b"]), pd.DataFrame(p, index=[4, 5, 6, 7]))
        assert issues.order[0] == 2
        assert issues.suggested.tolist() == ["a", "b", "a", "b"]
