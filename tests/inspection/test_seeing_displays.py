"""Displays of heat maps and neighbors, by what they draw; representer values."""

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklearn_featx import (
    HeatMapDisplay,
    ImageReader,
    NeighborsDisplay,
    PretrainedFeatureExtractor,
    heat_maps,
    nearest_images,
)
from sklearn_featx.exceptions import FeatxWarning, ImageWarning
from sklearn_featx.inspection._grid import nearly_square

mpl.use("Agg")


@pytest.fixture
def pyplot():
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


def small(**parameters):
    settings = {"layer": "blocks.2", "image_size": 32}
    return PretrainedFeatureExtractor(**settings | parameters)


@pytest.fixture(scope="module")
def model(digits):
    X, y = digits
    return make_pipeline(small(), LogisticRegression()).fit(X[y < 2], y[y < 2])


class TestHeatMapDisplay:
    def test_one_scale_titles_and_method(self, model, digits, pyplot):
        X = digits[0][:3]
        display = HeatMapDisplay.from_estimator(model, X)
        top = np.abs(heat_maps(model, X).maps).max()
        drawn = [ax.images for ax in display.axes_.ravel()]
        assert [len(images) for images in drawn] == [2, 2, 2]
        limits = {images[1].get_clim() for images in drawn}
        assert len(limits) == 1
        assert limits.pop() == pytest.approx((-top, top))
        scores = model.decision_function(X)
        assert [ax.get_title() for ax in display.axes_.ravel()] == [f"1: {s:+.2f}" for s in scores]
        assert display.colorbar_.ax.get_ylabel() == "decision function\nper position (exact)"

    def test_the_mass_lies_where_the_map_is_strong(self, model, digits, pyplot):
        display = HeatMapDisplay.from_estimator(model, digits[0][:2])
        for ax, values in zip(display.axes_.ravel(), display.heat_maps.maps, strict=True):
            drawn = np.asarray(ax.images[1].get_array())
            blocks = drawn.reshape(4, len(drawn) // 4, 4, -1).sum((1, 3))
            assert np.corrcoef(blocks.ravel(), values.ravel())[0, 1] > 0.9
            opacity = ax.images[1].get_alpha()
            assert opacity.max() <= 0.7
            assert opacity.flat[np.abs(drawn).argmax()] == opacity.max()

    def test_each_layer_is_interpolated_by_itself(self, digits, pyplot):
        """Not as squares of the coarser layer's positions; the sums stay."""
        X, y = digits[0][digits[1] < 2], digits[1][digits[1] < 2]
        features = small(layer=["blocks.1", "blocks.4"], normalize="layer")
        model = make_pipeline(features, LogisticRegression()).fit(X, y)
        display = HeatMapDisplay.from_estimator(model, X[:2])
        maps = display.heat_maps.maps
        assert (maps.shape, display.smooth.shape) == ((2, 8, 8), (2, 32, 32))
        np.testing.assert_allclose(display.smooth.sum((1, 2)), maps.sum((1, 2)))
        drawn = np.asarray(display.axes_[0, 0].images[1].get_array())
        np.testing.assert_allclose(
            drawn, (display.smooth[0] * 16).clip(-np.abs(maps).max(), np.abs(maps).max())
        )

    def test_the_file_is_drawn_whole(self, model, digits, pyplot):
        wide = np.pad(digits[0][0], [(0, 0), (6, 10)])
        display = HeatMapDisplay.from_estimator(model, wide[np.newaxis], view="file")
        ax = display.axes_[0, 0]
        assert ax.images[0].get_array().shape == (8, 24)
        left, right, bottom, top = ax.images[1].get_extent()
        # The crop keeps 7/8 of the shorter side, in the center.
        np.testing.assert_allclose([right - left, bottom - top], [7, 7], atol=0.4)
        np.testing.assert_allclose((left + right) / 2, 12, atol=0.2)
        assert ax.get_xlim() == (0, 24)

    def test_on_given_axes(self, model, digits, pyplot):
        figure, axes = pyplot.subplots(1, 2)
        display = HeatMapDisplay.from_estimator(model, digits[0][:2], ax=axes)
        assert display.figure_ is figure
        assert display.axes_.ravel().tolist() == axes.tolist()
        with pytest.raises(ValueError, match="ax has 2 axes"):
            display.__class__.from_estimator(model, digits[0][:3], ax=axes)
        with pytest.raises(ValueError, match="view='screen'"):
            HeatMapDisplay.from_estimator(model, digits[0][:1], view="screen")

    def test_unreadable_images_have_a_place(self, digit_files, pyplot):
        paths, y = digit_files
        model = make_pipeline(small(on_error="nan"), LogisticRegression()).fit(paths, y)
        with pytest.warns(ImageWarning, match="1 of 2 images could not be read"):
            display = HeatMapDisplay.from_estimator(model, ["nowhere.png", paths[0]])
        assert display.titles[0] == "unreadable"
        assert [len(ax.images) for ax in display.axes_.ravel()] == [0, 2]

    def test_a_bag_is_the_mean_of_its_pictures(self, digits, pyplot, small_net_factory):
        X, reader = digits[0], ImageReader(bag_pooling="mean")
        bags = [list(X[i : i + 3]) for i in range(0, 30, 3)]
        features = PretrainedFeatureExtractor(small_net_factory(), image_size=16, reader=reader)
        model = make_pipeline(features, LogisticRegression()).fit(bags, np.arange(10) % 2)
        display = HeatMapDisplay.from_estimator(model, bags[:1])
        each = HeatMapDisplay.from_estimator(model, [[image] for image in bags[0]]).pictures
        mean = np.mean([picture.pixels for picture in each], axis=0)
        np.testing.assert_allclose(display.pictures[0].pixels, mean)

    @pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (6, (1, 6)), (8, (2, 4)), (13, (3, 5))])
    def test_few_places_are_empty(self, n, shape):
        assert nearly_square(n) == shape


class TestNearestImages:
    @pytest.mark.parametrize(
        "head",
        [LogisticRegression(), LogisticRegression(C=0.1, class_weight="balanced"), LinearSVC(),
         RidgeClassifier(), Ridge(alpha=2.0), make_pipeline(StandardScaler(), LinearSVC(C=0.01))],
        ids=["logistic", "balanced", "SVC", "ridge classifier", "ridge", "scaled"],
    )  # fmt: skip
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_representer_values_sum_to_the_score(self, digits, head, n_classes):
        X, y = digits
        X, y = X[y < n_classes], y[y < n_classes]
        model = make_pipeline(small(normalize="layer"), head).fit(X[5:], y[5:])
        found = nearest_images(model, X, X[5:], y[5:])
        ask = getattr(model, "decision_function", None) if hasattr(head, "classes_") else None
        scores = (ask or getattr(model, "decision_function", model.predict))(X)
        scores = scores if scores.ndim == 1 else scores.max(1)
        error = found.values.sum(1) + found.intercept - scores
        assert np.abs(error).max() <= 1e-6 * np.abs(found.values).sum(1).max()

    @pytest.mark.parametrize("alpha", [2.0, np.array([0.5, 4.0])])
    def test_each_output_of_a_regressor_has_its_values(self, digits, alpha):
        X, y = digits
        targets = np.column_stack([y, -2 * y + 1])
        model = make_pipeline(small(normalize="layer"), Ridge(alpha=alpha)).fit(X, targets)
        for output in (0, 1):
            found = nearest_images(model, X[:5], X, targets, target=output)
            error = found.values.sum(1) + found.intercept - model.predict(X[:5])[:, output]
            assert np.abs(error).max() <= 1e-6 * np.abs(found.values).sum(1).max()

    def test_each_label_of_a_classifier_has_its_values(self, digits):
        X, y = digits
        labels = np.column_stack([y == 0, y > 0]).astype(int)
        model = make_pipeline(small(normalize="layer"), RidgeClassifier()).fit(X, labels)
        found = nearest_images(model, X[:5], X, labels, target=1)
        error = found.values.sum(1) + found.intercept - model.decision_function(X[:5])[:, 1]
        assert np.abs(error).max() <= 1e-6 * np.abs(found.values).sum(1).max()

    @pytest.mark.parametrize("n", [20, 60])
    def test_each_image_speaks_for_its_own_label(self, digits, n):
        # Its value for itself is C times target minus probability times its squared length. Rows
        # that are centered have the vector of ones as a direction of hardly any length.
        X, y = digits[0][:n], digits[1][:n] == 1
        features = PretrainedFeatureExtractor(image_size=64, normalize="layer")
        model = make_pipeline(features, LogisticRegression(max_iter=5000, tol=1e-8)).fit(X, y)
        values = nearest_images(model, X, X, y).values
        expected = (y - model.predict_proba(X)[:, 1])[:, np.newaxis]
        rows = model[:-1].transform(X).astype(float)
        np.testing.assert_allclose(values, (rows @ rows.T) * expected.T, atol=0.1)
        assert (np.diag(values) * np.where(y, 1, -1) > 0).all()

    @pytest.mark.parametrize("kept", [slice(30), np.arange(60) % 7])
    def test_images_other_than_those_of_the_fit(self, digits, kept):
        X, y = digits[0], digits[1] == 1
        model = make_pipeline(small(), LogisticRegression()).fit(X, y)
        with pytest.warns(FeatxWarning, match="y_train: the weights of LogisticRegression"):
            assert nearest_images(model, X[:2], X[kept], y[kept]).values is None

    def test_images_of_the_class_speak_for_it(self, digits, model):
        X, y = digits[0][digits[1] < 2], digits[1][digits[1] < 2]
        values = nearest_images(model, X, X, y).values
        zeros, ones = (values[y == 1][:, y == k].sum() for k in (0, 1))
        assert zeros < 0 < ones
        opposite = nearest_images(model, X, X, y, target=0).values
        np.testing.assert_allclose(opposite, -values)

    def test_an_image_is_nearest_to_itself(self, digits, model):
        X = digits[0]
        found = nearest_images(model, X[:4], X, n_neighbors=3)
        assert found.indices[:, 0].tolist() == [0, 1, 2, 3]
        assert np.abs(found.distances[:, 0]).max() < 1e-3
        assert found.values is None

    def test_other_models_have_neighbors_alone(self, digits):
        X, y = digits
        model = make_pipeline(small(), SVC()).fit(X, y)
        assert nearest_images(model, X[:2], X, y).values is None
        with pytest.raises(ValueError, match="n_neighbors=70"):
            nearest_images(model, X[:2], X, n_neighbors=70)

    def test_display(self, digits, model, pyplot):
        X, y = digits[0][digits[1] < 2], digits[1][digits[1] < 2]
        display = NeighborsDisplay.from_estimator(model, X[:2], X, y, n_neighbors=4)
        values = display.neighbors.values
        assert display.axes_.shape == (2, 5)
        for row in range(2):
            assert display.shown[row, 0] == values[row].argmax()
            assert display.shown[row, 2] == values[row].argmin()
            ax = display.axes_[row, 1]
            assert ax.get_title() == f"{y[values[row].argmax()]}: {values[row].max():+.2g}"
            np.testing.assert_allclose(
                ax.images[0].get_array(), display.train_pictures[display.shown[row, 0]].pixels
            )
        plain = NeighborsDisplay.from_estimator(model, X[:1], X, n_neighbors=2)
        assert plain.axes_[0, 1].get_title().endswith(" away")


@pytest.mark.parametrize("function", [nearest_images, NeighborsDisplay.from_estimator])
def test_targets_of_another_length_are_refused(model, digits, function):
    X, y = digits
    text = r"^y_train has 2 entries, and X_train has 20 images\. Pass one for each image\.$"
    with pytest.raises(ValueError, match=text):
        function(model, X[:2], X[:20], y[:2])
