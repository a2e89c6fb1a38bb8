"""The tuned embedding as columns, and that out-of-fold ones do not leak targets."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
)
from sklearn_featx.exceptions import ImageWarning


@pytest.fixture
def make(small_net):
    def make(cls=FineTuneClassifier, **parameters):
        settings = {"C": 1.0, "random_state": 0, "max_epochs": 1, "unfreeze_depth": 1}
        return cls(small_net, **settings | parameters)

    return make


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
@pytest.mark.parametrize("head_layers", ["last", "all"])
def test_it_is_what_the_head_reads(make, digits, cls, head_layers):
    X, y = digits
    model = make(cls, head_layers=head_layers)
    embeddings = model.fit_transform(X, y)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (60, model.n_embedding_)
    np.testing.assert_array_equal(embeddings, model.transform(X))
    names = model.get_feature_names_out()
    assert len(set(names)) == embeddings.shape[1]
    assert names[-1] == f"{cls.__name__.lower()}_top_avg_31"
    framed = model.set_output(transform="pandas").transform(X[:5])
    assert list(framed.columns) == list(names)
    outputs = model._outputs(X[:5])[0]
    head = model.net_.module_.head

    with torch.no_grad():
        np.testing.assert_allclose(head(torch.tensor(embeddings[:5])), outputs, atol=1e-5)


def test_depth_0_is_the_frozen_embedding(make, digits, small_net):
    X, y = digits
    extractor = PretrainedFeatureExtractor(small_net, layer="all", pooling="grid3")
    frozen = extractor.fit_transform(X)
    for cross_fit in (None, 2):
        clf = make(unfreeze_depth=0, head_layers="all", cross_fit=cross_fit)
        np.testing.assert_array_equal(clf.fit_transform(X, y), frozen)


@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_folds_are_those_of_networks_trained_on_the_others(make, digits, cls):
    X, y = digits
    model = make(cls, cross_fit=3)
    embeddings = model.fit_transform(X, y)
    alone = make(cls).fit(X, y)
    # What is kept for new images was trained on all of them.
    np.testing.assert_array_equal(model.transform(X), alone.transform(X))
    assert not np.allclose(embeddings, model.transform(X))
    for train, test in model._folds(np.arange(60), y, None):
        fold = make(cls).fit(X[train], y[train])
        np.testing.assert_allclose(embeddings[test], fold.transform(X[test]), atol=1e-5)


def test_a_target_has_no_part_in_the_embedding_of_its_own_image(make, digits):
    # Nor through a mean of all targets: github.com/bijay-odyssey/edaprep/issues/36
    X, y = digits
    other = y.astype(float)
    other[7] += 100
    first, second = (make(FineTuneRegressor, cross_fit=2).fit_transform(X, t) for t in (y, other))
    assert np.array_equal(first[7], second[7])
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_noise_stays_noise_out_of_fold(make):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    y = rng.permutation(np.arange(40) % 2)
    settings = {"batch_norm": "train", "backbone_lr_ratio": 1.0, "batch_size": 10, "lr": 0.01}
    model = make(unfreeze_depth="all", max_epochs=40, **settings)
    learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    leaking = cross_val_score(learner, model.fit_transform(X, y), y, cv=5).mean()
    model.set_params(cross_fit=4)
    honest = cross_val_score(learner, model.fit_transform(X, y), y, cv=5).mean()
    assert leaking > 0.9
    assert 0.25 < honest < 0.75


def test_folds_are_fitted_anew_with_their_weights_and_groups(make, digits, monkeypatch):
    fits, original = [], FineTuneClassifier._fit_rows

    def spy(model, images, targets, weights, tasks=None, groups=None):
        fits.append((model.warm_start, weights, groups))
        return original(model, images, targets, weights, tasks, groups)

    monkeypatch.setattr(FineTuneClassifier, "_fit_rows", spy)
    model = make(cross_fit=2, warm_start=True)
    model.fit_transform(*digits, sample_weight=np.arange(1.0, 61), groups=np.arange(60) // 2)
    (_, *whole), *folds = fits
    assert sorted(np.concatenate([weights for _, weights, _ in folds])) == list(whole[0])
    for warm_start, weights, groups in folds:
        assert not warm_start
        np.testing.assert_array_equal(groups, (weights - 1) // 2)


def test_beside_numbers_and_in_a_pipeline(make, digits):
    pd = pytest.importorskip("pandas")
    X, y = digits
    table = pd.DataFrame({"image": list(X), "number": np.arange(60.0)})
    columns = make_column_transformer((make(cross_fit=2), "image"), ("passthrough", ["number"]))
    assert columns.fit_transform(table, y).shape == (60, 33)
    pipe = make_pipeline(make(cross_fit=2), KNeighborsClassifier(1))
    assert clone(pipe).fit(X, y).score(X, y) > 0.5


def test_images_that_cannot_be_read_are_nan(make, digit_files):
    paths, y = digit_files
    paths = [*paths[:50], "nothing.png"]
    model = make(on_error="nan", image_size=8, cross_fit=2)
    with pytest.warns(ImageWarning):
        embeddings = model.fit_transform(paths, y[:51])
    assert np.isnan(embeddings[50]).all()
    assert np.isfinite(embeddings[:50]).all()
    with pytest.warns(ImageWarning, match="NaN"):
        assert np.isnan(model.transform(paths)[50]).all()


@pytest.mark.parametrize("depth", [0, 1])
class TestTooFewRowsForTheFolds:
    """The same at every depth, though at depth 0 no fold is fitted."""

    @pytest.mark.parametrize(
        ("y", "said"),
        [
            ([0, 1, 2, 0, 1, 2], r"cross_fit=5 folds need .*, 0, has 2\. Set cross_fit=2 or cross"),
            (list("abcabc"), r"cross_fit=5 folds need .*, 'a', has 2\."),
            (list("abcdef"), r"cross_fit=5 folds need .*, 'a', has 1\. Set cross_fit=None"),
            ([0, 0, 0, 0, 0, 1], r"cross_fit=5: the fold that holds out class 1 would train on 0"),
        ],
    )
    def test_of_a_class(self, y, said, depth, make, digits, trunk_rows):
        with pytest.raises(ValueError, match=said):
            make(unfreeze_depth=depth, cross_fit=5).fit_transform(digits[0][:6], y)
        assert trunk_rows == []

    def test_of_a_class_of_one_group(self, depth, make, digits):
        y, groups = [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 4, 4]
        model = make(unfreeze_depth=depth, cross_fit=2)
        with pytest.raises(ValueError, match="holds out class 1 would train on 0 only"):
            model.fit_transform(digits[0][:6], y, groups=groups)

    @pytest.mark.parametrize("n_outputs", [1, 2])
    def test_of_a_regression(self, n_outputs, depth, make, digits):
        y = np.arange(4.0 * n_outputs).reshape(4, n_outputs).squeeze()
        model = make(FineTuneRegressor, unfreeze_depth=depth, cross_fit=5)
        with pytest.raises(ValueError, match=r"cross_fit=5 folds need .*, and there are 4\."):
            model.fit_transform(digits[0][:4], y)

    def test_of_readable_images(self, depth, make, digit_files):
        paths = ["lost.png", *digit_files[0][1:4]]
        model = make(unfreeze_depth=depth, cross_fit=2, on_error="nan", image_size=8)
        with (
            pytest.warns(ImageWarning, match="left out"),
            pytest.raises(ValueError, match="holds out class 0 would train on 1 only"),
        ):
            model.fit_transform(paths, [0, 0, 1, 1])

    def test_enough_rows(self, depth, make, digits):
        model = make(unfreeze_depth=depth, cross_fit=2)
        assert model.fit_transform(digits[0][:6], [0, 1, 2, 0, 1, 2]).shape == (6, 32)


def test_it_needs_fit(make, digits):
    with pytest.raises(NotFittedError):
        make().transform(digits[0])
    with pytest.raises(NotFittedError):
        make().get_feature_names_out()
