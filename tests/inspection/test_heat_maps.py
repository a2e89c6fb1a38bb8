"""Heat maps: they sum to the score, exactly; what is not affine gets Shapley values."""

import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
    exceptions,
    heat_maps,
)
from sklearn_featx.backbones import _backbone, _feature_map, _stage, find_feature_map, get_backbone
from sklearn_featx.exceptions import ImageWarning, UnsuitableModelError
from sklearn_featx.flow import _cached_rows
from sklearn_featx.inspection._layer_maps import LayerMaps

HEADS = {
    "logistic": lambda: LogisticRegression(),
    "PCA": lambda: make_pipeline(StandardScaler(), PCA(8), LogisticRegression()),
    "selector": lambda: make_pipeline(VarianceThreshold(), SelectKBest(k=12), LinearSVC()),
    "LDA": lambda: make_pipeline(StandardScaler(), PCA(8), LinearDiscriminantAnalysis()),
    "SGD": lambda: make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "ridge": lambda: make_pipeline(StandardScaler(), RidgeClassifier()),
    "linear SVC": lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")),
    "search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
}
POOLINGS = ["avg", "max", "avgmax", "gem", "grid2", "grid3", "flatten", ["avg", "max"]]
NOT_AFFINE = {
    "RBF": lambda: make_pipeline(StandardScaler(), SVC()),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "neighbors": lambda: KNeighborsClassifier(),
    "MLP": lambda: MLPClassifier((8,), random_state=0, tol=1.0, n_iter_no_change=2),
    "ensemble": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2),
}

# Networks that take a second or more.
LARGE = ("packaged", "torchvision", "timm", "Swin")


def seeded(build):
    """A network with random weights, the same in each run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


@pytest.fixture(scope="module")
def backbones(small_net_factory):
    """Networks by kind, with the layer that is pooled by the mean."""
    tokens = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}
    return {
        "own": (small_net_factory(), None),
        "packaged": ("efficientnet_lite0", None),
        "torchvision": (seeded(torchvision.models.resnet18), None),
        "timm": (seeded(lambda: timm.create_model("resnet10t")), None),
        "ViT, avg": (
            seeded(lambda: timm.create_model("vit_tiny_patch16_224", **tokens)),
            "blocks.1",
        ),
        "Swin": (seeded(lambda: torchvision.models.swin_t()), "features.3"),
    }


@pytest.fixture(scope="module")
def two(digits):
    X, y = digits
    return X[y < 2][:20], y[y < 2][:20]


def extractor(backbone, layer=None, **parameters):
    size = 32 if layer not in (None, "all") or hasattr(backbone, "body") else 64
    return PretrainedFeatureExtractor(backbone, layer=layer, **{"image_size": size} | parameters)


def small(**parameters):
    return extractor("efficientnet_lite0", **{"layer": "blocks.2"} | parameters)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


class TestExact:
    @pytest.mark.filterwarnings("ignore:backbone. the weights:UserWarning")
    @pytest.mark.parametrize(
        "kind", ["own", "ViT, avg", *(pytest.param(k, marks=pytest.mark.slow) for k in LARGE)]
    )
    @pytest.mark.parametrize("all_layers", [False, True], ids=["one layer", "all layers"])
    def test_sums_are_scores_on_each_backbone(self, backbones, two, kind, all_layers):
        backbone, layer = backbones[kind]
        if all_layers and kind in ("ViT, avg", "Swin"):
            layer = {"ViT, avg": ["blocks.0", "blocks.1"],
                     "Swin": ["features.1", "features.3"]}[kind]  # fmt: skip
        elif all_layers:
            layer = "all"
        features = extractor(backbone, layer, normalize="layer")
        rows = features.fit_transform(two[0])
        X, seen = two[0], set()
        for make in HEADS.values():
            model = make_pipeline(features, make().fit(rows, two[1]))
            found = heat_maps(model, X)
            assert found.method == "exact"
            assert found.unit == "decision function"
            assert relative(found.scores, model.decision_function(X)) < 1e-5
            seen.add(found.maps.shape[1:])
        assert len(seen) == 1
        assert min(seen) >= (2, 2)

    @pytest.mark.parametrize("pooling", POOLINGS)
    @pytest.mark.parametrize("normalize", [False, "layer"])
    def test_poolings(self, two, pooling, normalize):
        model = make_pipeline(small(pooling=pooling, normalize=normalize), LogisticRegression())
        model.fit(*two)
        found = heat_maps(model, two[0])
        assert found.method == "exact"
        assert relative(found.scores, model.decision_function(two[0])) < 1e-5

    def test_maximum_goes_where_it_is_reached(self, two):
        X, y = two
        model = make_pipeline(small(pooling="max"), LogisticRegression()).fit(X, y)
        maps = small(pooling=None).fit_transform(X[:3])
        weights = model[-1].coef_[0]
        for found, values in zip(heat_maps(model, X[:3]).maps, maps, strict=True):
            expected = np.zeros(16)
            for weight, channel in zip(weights, values.reshape(len(values), -1), strict=True):
                expected[channel.argmax()] += weight * channel.max()
            np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6, atol=1e-9)

    def test_equals_gradient_times_activation(self, two):
        """HiResCAM, by automatic differentiation of mean and head."""
        X, y = two
        model = make_pipeline(small(), StandardScaler(), PCA(5), LogisticRegression()).fit(X, y)
        scaler, pca, head = model[1:]
        maps = torch.from_numpy(small(pooling=None).fit_transform(X)).double().requires_grad_()
        arrays = (scaler.mean_, scaler.scale_, pca.mean_, pca.components_.T, head.coef_[0])
        mean, scale, center, axes, weights = (torch.tensor(a).double() for a in arrays)
        (((maps.mean((2, 3)) - mean) / scale - center) @ axes @ weights).sum().backward()
        expected = (maps * maps.grad).sum(1).detach().numpy()
        assert relative(heat_maps(model, X, baseline="zero").maps, expected) < 1e-6
        # Against the mean that the scaler knows, whose score is the intercept: a constant less.
        found = heat_maps(model, X)
        assert np.ptp(found.maps - expected) < 1e-6 * np.abs(expected).max()
        at_mean = model[1:].decision_function(scaler.mean_[np.newaxis])
        np.testing.assert_allclose(found.intercept, np.repeat(at_mean, len(X)), atol=1e-9)

    @pytest.mark.filterwarnings("ignore")
    def test_equals_hirescam_of_pytorch_grad_cam(self, two):
        """With the same head as `nn.Linear` on the mean of the same activations."""
        grad_cam = pytest.importorskip("pytorch_grad_cam")
        X, y = two
        model = make_pipeline(small(), LogisticRegression()).fit(X, y)
        head = torch.nn.Linear(model[-1].coef_.shape[1], 1).double()
        weight, bias = (torch.tensor(a) for a in (model[-1].coef_, model[-1].intercept_))
        head.load_state_dict({"weight": weight, "bias": bias})
        parts = (torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
        net = torch.nn.Sequential(*parts)
        maps = torch.from_numpy(small(pooling=None).fit_transform(X)).double().requires_grad_()
        with grad_cam.HiResCAM(model=net, target_layers=[net[0]]) as cam:
            cam.activations_and_grads(maps).sum().backward()
            found = cam.activations_and_grads
            arrays = (found.activations[0].numpy(), found.gradients[0].numpy())
            # Before it is cut off at 0 and scaled to 1.
            expected = cam.get_cam_image(maps, net[0], None, *arrays, eigen_smooth=False)
        assert relative(heat_maps(model, X).maps, expected) < 1e-4

    def test_each_class_and_each_image_has_a_target(self, digits):
        X, y = digits
        names = np.array(["zero", "one", "two"])[y]
        model = make_pipeline(small(), LogisticRegression()).fit(X, names)
        scores = model.decision_function(X)
        found = heat_maps(model, X)
        assert (found.target == model.predict(X)).all()
        assert relative(found.scores, scores.max(1)) < 1e-5
        one = heat_maps(model, X, target="one")
        assert relative(one.scores, scores[:, list(model.classes_).index("one")]) < 1e-5
        each = heat_maps(model, X, target=names)
        assert (each.target == names).all()
        with pytest.raises(ValueError, match="none of the classes"):
            heat_maps(model, X, target="three")

    def test_the_first_class_has_the_opposite_map(self, two):
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        one, zero = (heat_maps(model, two[0], target=k) for k in (1, 0))
        np.testing.assert_allclose(one.maps, -zero.maps)
        np.testing.assert_allclose(one.intercept, -zero.intercept)

    def test_regression_and_log_odds(self, two):
        X, y = two
        model = make_pipeline(small(), StandardScaler(), Ridge()).fit(X, y)
        found = heat_maps(model, X)
        assert (found.method, found.unit) == ("exact", "value")
        assert relative(found.scores, model.predict(X)) < 1e-5
        head = CalibratedClassifierCV(LogisticRegression(C=1e-3), ensemble=False, cv=2)
        model = make_pipeline(small(), head).fit(X, y)
        found = heat_maps(model, X)
        assert (found.method, found.unit) == ("exact", "log-odds")
        odds = model.predict_proba(X)
        assert relative(found.scores, np.log(odds[:, 1] / odds[:, 0])) < 1e-5

    @pytest.mark.parametrize("size", ["image", (50, 70)])
    def test_interpolated_maps_keep_the_sum(self, two, size):
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        found, finer = heat_maps(model, two[0]), heat_maps(model, two[0], size=size)
        assert finer.maps.shape[1:] == ((32, 32) if size == "image" else size)
        np.testing.assert_allclose(finer.scores, found.scores)

    def test_rows_of_other_images_change_nothing(self, two):
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        together, alone = heat_maps(model, two[0]), heat_maps(model, two[0][:1])
        np.testing.assert_allclose(alone.maps[0], together.maps[0], rtol=1e-6, atol=1e-9)

    def test_unreadable_images_have_no_map(self, digit_files, digits):
        paths, y = digit_files
        features = small(on_error="nan")
        model = make_pipeline(features, LogisticRegression()).fit(paths, y)
        with pytest.warns(ImageWarning, match=r"1 of 3 images .* their maps are NaN.*nowhere\.png"):
            found = heat_maps(model, [paths[0], "nowhere.png", paths[1]])
        assert np.isnan(found.maps[1]).all()
        assert np.isfinite(found.maps[[0, 2]]).all()


def test_cached_maps_are_read_in_small_groups(small_net_factory, two, monkeypatch):
    """Large maps of many images are never in memory together; the groups change nothing."""
    X, y = two
    features = PretrainedFeatureExtractor(small_net_factory(), layer="all", image_size=16)
    model = make_pipeline(features, StandardScaler(), LogisticRegression()).fit(X, y)
    whole, read = heat_maps(model, X), []
    original = _cached_rows.read_rows

    def spy(job, positions):
        read.append(len(positions))
        yield from original(job, positions)

    monkeypatch.setattr(_cached_rows, "read_rows", spy)
    monkeypatch.setattr(_cached_rows, "_BYTES_PER_READ", 2**16)
    found = heat_maps(model, X)
    assert sum(read) == len(X)
    assert 1 <= max(read) <= 4
    np.testing.assert_allclose(found.maps, whole.maps, atol=1e-12)
    np.testing.assert_allclose(found.scores, whole.scores)


class TestBaseline:
    @pytest.mark.parametrize("pooling", POOLINGS)
    @pytest.mark.parametrize("method", ["exact", "shapley"])
    def test_mean_images_are_the_intercept(self, two, pooling, method):
        X, y = two
        features = small(pooling=pooling)
        model = make_pipeline(features, LogisticRegression()).fit(X, y)
        found = heat_maps(model, X[:3], method=method, baseline=X[3:], n_samples=100)
        assert relative(found.scores, model.decision_function(X[:3])) < 1e-5
        mean = features.transform(X[3:]).astype(float).mean(0)
        expected = model[-1].decision_function(mean[np.newaxis])
        np.testing.assert_allclose(found.intercept, np.repeat(expected, 3), rtol=1e-5)

    def test_of_models_that_know_no_mean(self, two):
        X, y = two
        affine = make_pipeline(small(), LogisticRegression()).fit(X, y)
        zero = heat_maps(affine, X[:2], baseline="zero")
        np.testing.assert_array_equal(heat_maps(affine, X[:2]).maps, zero.maps)
        np.testing.assert_allclose(zero.intercept, affine[-1].intercept_[0])
        forest = make_pipeline(small(), NOT_AFFINE["forest"]()).fit(X, y)
        own, same = heat_maps(forest, X[:4]), heat_maps(forest, X[:4], baseline=X[:4])
        np.testing.assert_array_equal(own.maps, same.maps)

    def test_what_is_no_baseline_is_refused(self, two):
        model = make_pipeline(small(), LogisticRegression()).fit(*two)
        with pytest.raises(ValueError, match="baseline='blur'"):
            heat_maps(model, two[0], baseline="blur")


class TestFineTuners:
    """Sums are scores: of the probe and of trained stages, of the last layer and of all."""

    @pytest.mark.parametrize("depth", [0, 1, 2, "all", (2, 3)])
    @pytest.mark.parametrize("head_layers", ["last", "all"])
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_classifier(self, small_net_factory, digits, depth, head_layers, n_classes):
        X, y = digits
        X, y = X[y < n_classes][:24], y[y < n_classes][:24]
        model = tuner(small_net_factory, unfreeze_depth=depth, head_layers=head_layers).fit(X, y)
        scores = model.decision_function(X)
        found = heat_maps(model, X)
        assert (found.method, found.unit) == ("exact", "decision function")
        assert min(found.maps.shape[1:]) >= 4
        assert (np.ptp(found.maps, axis=(1, 2)) > 0).all()
        expected = scores if n_classes == 2 else scores.max(1)
        # Log-probabilities of sure predictions are near 0: relative to those of all classes.
        assert np.abs(found.scores - expected).max() < 1e-5 * np.abs(scores).max()
        assert (found.target == (model.predict(X) if n_classes > 2 else 1)).all()
        first = heat_maps(model, X, target=0)
        expected = -scores if n_classes == 2 else scores[:, 0]
        assert np.abs(first.scores - expected).max() < 1e-5 * np.abs(scores).max()

    @pytest.mark.parametrize("depth", [0, 1])
    def test_regressor(self, small_net_factory, digits, depth):
        X, y = digits[0][:20], digits[1][:20] * 3.0 + 1
        model = tuner(small_net_factory, FineTuneRegressor, unfreeze_depth=depth).fit(X, y)
        found = heat_maps(model, X)
        assert (found.method, found.unit) == ("exact", "value")
        assert relative(found.scores, model.predict(X)) < 1e-5

    def test_matrix_of_labels(self, small_net_factory, digits):
        X, y = digits[0][:20], np.stack([digits[1][:20] > 0, digits[1][:20] > 1], axis=1) * 1
        model = tuner(small_net_factory, unfreeze_depth=1).fit(X, y)
        found = heat_maps(model, X, target=0)
        assert relative(found.scores, model.decision_function(X)[:, 0]) < 1e-5

    def test_in_a_search_and_before_a_predictor(self, small_net_factory, two):
        pipeline = make_pipeline(tuner(small_net_factory))
        grid = {"finetuneclassifier__unfreeze_depth": [0, 1]}
        search = GridSearchCV(pipeline, grid, cv=2).fit(*two)
        found = heat_maps(search, two[0])
        assert relative(found.scores, search.decision_function(two[0])) < 1e-5
        chain = make_pipeline(tuner(small_net_factory), StandardScaler(), LinearSVC()).fit(*two)
        found = heat_maps(chain, two[0])
        assert found.method == "exact"
        assert relative(found.scores, chain.decision_function(two[0])) < 1e-5

    def test_hidden_layers_get_shapley_values(self, small_net_factory, two):
        model = tuner(small_net_factory, head="mlp").fit(*two)
        found = heat_maps(model, two[0][:2], n_samples=64)
        assert found.method == "shapley"
        assert relative(found.scores, model.decision_function(two[0][:2])) < 1e-5

    def test_maps_follow_the_training(self, small_net_factory, two):
        model = tuner(small_net_factory, unfreeze_depth="all", warm_start=True).fit(*two)
        before = heat_maps(model, two[0])
        after = heat_maps(model.fit(*two), two[0])
        assert relative(after.scores, model.decision_function(two[0])) < 1e-5
        assert relative(after.maps, before.maps) > 1e-3


def tuner(net, kind=FineTuneClassifier, **parameters):
    settings = {"unfreeze_depth": 1, "max_epochs": 2, "lr": 1e-2, "random_state": 0}
    return kind(net(), **settings | parameters)


class TestNotAffine:
    @pytest.mark.parametrize("name", NOT_AFFINE)
    def test_shapley_values_sum_to_the_score(self, two, name):
        X, y = two
        model = make_pipeline(small(), NOT_AFFINE[name]()).fit(X, y)
        found = heat_maps(model, X[:4], n_samples=128)
        assert found.method == "shapley"
        scores = (
            model.predict_proba(X[:4])[:, 1] if name != "RBF" else model.decision_function(X[:4])
        )
        np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-7)
        with pytest.raises(ValueError, match="not an affine function"):
            heat_maps(model, X[:4], method="exact")

    def test_each_coalition_is_scored_once(self, two, monkeypatch, capsys):
        # Of 4 cells there are 16, whatever `n_samples` is.
        model = make_pipeline(small(image_size=16, verbose=1), NOT_AFFINE["forest"]())
        model.fit(*two)
        n_rows, rows_without = [], LayerMaps.rows_without

        def counted(self, i, kept, *rest):
            n_rows.append(len(kept))
            return rows_without(self, i, kept, *rest)

        monkeypatch.setattr(LayerMaps, "rows_without", counted)
        found = heat_maps(model, two[0][:3])
        assert (found.method, found.maps.shape) == ("shapley", (3, 2, 2))
        assert n_rows == [16] * 3
        assert "heat maps: 100%" in capsys.readouterr().err

    def test_maps_are_searched_for_in_one_dry_run(self, small_net_factory, monkeypatch):
        # A row of one position comes from activations many operations before it.
        runs, dry_run = [], _stage.dry_run

        def spy(*args, **options):
            runs.append(1)
            return dry_run(*args, **options)

        for module in (_backbone, _feature_map):
            monkeypatch.setattr(
                module, "dry_run", lambda *a, **k: runs.append(1) or dry_run(*a, **k)
            )
        backbone = get_backbone(small_net_factory())
        assert find_feature_map(backbone, len(backbone.stages), "avg", (1, 2, 2)) is not None
        assert len(runs) == 2

    @pytest.mark.parametrize("method", ["shapley", "occlusion"])
    @pytest.mark.parametrize("pooling", ["avg", "flatten"])
    def test_equal_to_the_exact_map_where_there_is_one(self, two, method, pooling):
        model = make_pipeline(small(pooling=pooling), StandardScaler(), LogisticRegression())
        model.fit(*two)
        exact = heat_maps(model, two[0][:5])
        found = heat_maps(model, two[0][:5], method=method, n_samples=128)
        np.testing.assert_allclose(found.maps, exact.maps, atol=1e-9)
        np.testing.assert_allclose(found.intercept, exact.intercept, atol=1e-9)

    def test_unit_norm_rows_are_not_affine(self, two):
        model = make_pipeline(small(normalize=True), LogisticRegression()).fit(*two)
        found = heat_maps(model, two[0][:3])
        assert found.method == "shapley"
        assert relative(found.scores, model.decision_function(two[0][:3])) < 1e-5

    def test_class_token_is_seen_through_the_last_block(self, backbones, two):
        net, _ = backbones["ViT, avg"]
        for layer, pooling in ((None, "avg"), ("blocks.1", "cls")):
            features = extractor(net, layer, pooling=pooling, image_size=32)
            model = make_pipeline(features, LogisticRegression()).fit(*two)
            found = heat_maps(model, two[0][:3], n_samples=64)
            assert (found.method, found.maps.shape) == ("shapley", (3, 4, 4))
            assert relative(found.scores, model.decision_function(two[0][:3])) < 1e-5
            assert (found.maps != 0).all()

    def test_no_further_pass_of_the_backbone(self, two, trunk_rows):
        model = make_pipeline(small(), NOT_AFFINE["forest"]()).fit(*two)
        heat_maps(model, two[0])
        computed = sum(trunk_rows)
        heat_maps(model, two[0])
        heat_maps(model, two[0], method="occlusion")
        assert sum(trunk_rows) == computed


@pytest.fixture(scope="module")
def bags(digits):
    X = digits[0]
    return [list(X[i : i + 2 + i % 2]) for i in range(0, 45, 3)], np.arange(15) % 2


class TestBags:
    """Several images in an entry: a map of their mean, or an error, never a wrong sum."""

    @pytest.mark.parametrize("bag_pooling", ["mean", "max", "std", "mean+max"])
    @pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
    def test_of_an_extractor(self, small_net_factory, bags, bag_pooling, pooling):
        reader = ImageReader(bag_pooling=bag_pooling)
        features = extractor(small_net_factory(), pooling=pooling, layer="body", reader=reader)
        model = make_pipeline(features, LogisticRegression(max_iter=1000)).fit(*bags)
        alone = [[image] for image in bags[0][0]]
        if bag_pooling == "mean" and pooling != "max":
            found = heat_maps(model, bags[0])
            assert relative(found.scores, model.decision_function(bags[0])) < 1e-5
            # The map of a mean is the mean of the maps.
            each = heat_maps(model, alone).maps.mean(0)
            np.testing.assert_allclose(found.maps[0], each, atol=1e-5 * np.abs(each).max())
        else:
            way_out = (
                "[image]" if bag_pooling in ("mean", "max") else "Fit with bag_pooling='mean'."
            )
            words = f"pooled by bag_pooling='{re.escape(bag_pooling)}'.*{re.escape(way_out)}"
            with pytest.raises(ValueError, match=words):
                heat_maps(model, bags[0])
        if bag_pooling in ("mean", "max"):
            found = heat_maps(model, alone)
            assert relative(found.scores, model.decision_function(alone)) < 1e-5
        else:
            with pytest.raises(ValueError, match="Fit with bag_pooling='mean'"):
                heat_maps(model, alone)

    def test_of_a_fine_tuner(self, small_net_factory, bags):
        model = tuner(small_net_factory, reader=ImageReader(bag_pooling="mean")).fit(*bags)
        with pytest.raises(ValueError, match=r"Pass each image as an entry of its own, \[image\]"):
            heat_maps(model, bags[0])
        alone = [[image] for image in bags[0][0]]
        found = heat_maps(model, alone)
        assert relative(found.scores, model.decision_function(alone)) < 1e-5


def test_what_has_no_map_is_refused(two):
    X, y = two
    with pytest.raises(TypeError, match="one PretrainedFeatureExtractor"):
        heat_maps(LogisticRegression(), X)
    with pytest.raises(TypeError, match="no decision_function"):
        heat_maps(make_pipeline(small(), StandardScaler()).fit(X), X)
    with pytest.raises(UnsuitableModelError, match="nothing follows the extractor"):
        heat_maps(make_pipeline(small()).fit(X), X)
    # The number of a cluster is a name, not a score.
    with pytest.raises(UnsuitableModelError, match=r"KMeans.*Take a classifier or regressor"):
        heat_maps(make_pipeline(small(), KMeans(2, n_init=1, random_state=0)).fit(X), X)
    model = make_pipeline(small(), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="method='best'"):
        heat_maps(model, X, method="best")
    with pytest.raises(ValueError, match="size=7"):
        heat_maps(model, X, size=7)
    with pytest.raises(ValueError, match="target has 2 entries"):
        heat_maps(model, X, target=[0, 1])
    with pytest.raises(exceptions.ImageError):
        heat_maps(model, ["nowhere.png"])
