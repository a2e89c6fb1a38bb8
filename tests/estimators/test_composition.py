"""Both estimators inside scikit-learn's meta-estimators, as their users combine them."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor


def logistic(**parameters):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **parameters))


def tuner(backbone, **parameters):
    settings = {"max_epochs": 2, "random_state": 0, "C": 1.0, "image_size": 16}
    return FineTuneClassifier(backbone, **settings | parameters)


def test_pipeline_and_cross_validation(small_net, digits):
    images, labels = digits
    pipe = make_pipeline(PretrainedFeatureExtractor(small_net), logistic())
    assert cross_val_score(pipe, images, labels, cv=3).mean() > 0.8
    predicted = cross_val_predict(pipe, images, labels, cv=3, method="predict_proba")
    assert predicted.shape == (60, 3)


def test_image_paths_beside_numbers_in_a_column_transformer(small_net, digit_files):
    paths, labels = digit_files
    frame = pd.DataFrame({"path": paths, "age": np.arange(60.0), "weight": np.ones(60)})
    extractor = PretrainedFeatureExtractor(small_net, image_size=16)
    for columns in ("path", ["path"]):
        transformer = ColumnTransformer(
            [("image", extractor, columns), ("numbers", StandardScaler(), ["age", "weight"])]
        )
        table = transformer.fit_transform(frame)
        assert table.shape == (60, 34)
        names = transformer.get_feature_names_out()
        assert names[0] == "image__smallnet_00"
        assert names[-1] == "numbers__weight"
        pipe = make_pipeline(transformer, logistic()).fit(frame, labels)
        assert pipe.score(frame, labels) > 0.9


def test_two_backbones_side_by_side(small_net_factory, digits):
    # keras-team/keras#8406: features of two networks, concatenated.
    images = digits[0]
    parts = [(f"net {seed}", small_net_factory(seed)) for seed in (1, 0)]
    union = FeatureUnion(
        [(name, PretrainedFeatureExtractor(net, layer=["body", "stem"])) for name, net in parts]
    )
    rows = union.fit_transform(images)
    alone = [
        PretrainedFeatureExtractor(net, layer=layer).fit_transform(images)
        for _, net in parts
        for layer in ("body", "stem")
    ]
    np.testing.assert_array_equal(rows, np.hstack(alone))
    names = union.get_feature_names_out()
    assert (names[0], names[16], names[-1]) == (
        "net 1__smallnet_body_avg_00",
        "net 1__smallnet_stem_avg_0",
        "net 0__smallnet_stem_avg_7",
    )


@pytest.mark.parametrize(
    "combine",
    [
        lambda model, pipe: CalibratedClassifierCV(model, cv=2),
        lambda model, pipe: BaggingClassifier(model, n_estimators=2, random_state=0),
        lambda model, pipe: StackingClassifier([("tuned", model), ("frozen", pipe)], cv=2),
        lambda model, pipe: VotingClassifier([("tuned", model), ("frozen", pipe)], voting="soft"),
        lambda model, pipe: HalvingGridSearchCV(
            model, {"unfreeze_depth": [0, 1]}, resource="max_epochs", max_resources=4, cv=2
        ),
    ],
    ids=["calibrated", "bagging", "stacking", "voting", "halving"],
)
def test_estimators_of_estimators(combine, small_net, digit_files):
    paths, labels = digit_files
    # Not a list: bagging wants two dimensions.
    column = np.array(paths)[:, None]
    pipe = make_pipeline(PretrainedFeatureExtractor(small_net, image_size=16), logistic())
    combined = combine(tuner(small_net), pipe).fit(column, labels)
    assert combined.score(column, labels) > 0.8


def test_images_without_a_label(small_net, digit_files):
    paths, labels = digit_files
    known = np.where(np.arange(60) % 3, labels, -1)
    extractor = PretrainedFeatureExtractor(small_net, image_size=16)
    pipe = make_pipeline(extractor, SelfTrainingClassifier(logistic())).fit(paths, known)
    assert pipe.score(paths, labels) > 0.8


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_set_output(output, small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net).set_output(transform=output)
    frame = extractor.fit_transform(digits[0])
    assert type(frame).__module__.split(".")[0] == output
    assert list(frame.columns) == list(extractor.get_feature_names_out())


def test_search_over_depth(small_net, digits):
    search = GridSearchCV(tuner(small_net), {"unfreeze_depth": [0, 1, 2, "all"]}, cv=3)
    search.fit(*digits)
    assert len(set(search.cv_results_["param_unfreeze_depth"])) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict(digits[0]).shape == (60,)


def test_search_over_backbone_builds_and_uses_each_once(small_net_factory, digits, builds):
    nets = [small_net_factory(seed) for seed in range(3)]
    nets[2].stem[0].weight.data.zero_()
    nets[2].stem[0].bias.data.zero_()
    search = GridSearchCV(tuner(nets[0], unfreeze_depth=0), {"backbone": nets}, cv=3)
    search.fit(*digits)
    assert len(builds) == 3
    scores = search.cv_results_["mean_test_score"]
    # The third net sees nothing: only a search that really uses it can tell.
    assert scores[2] < 0.5 < min(scores[:2])


def test_search_over_names_of_backbones(digits, builds):
    with pytest.warns(UserWarning, match="random weights"):
        search = GridSearchCV(
            PretrainedPipeline(),
            {"images__backbone": ["squeezenet1_1", "shufflenet_v2_x0_5"]},
            cv=2,
            error_score="raise",
        ).fit(digits[0][:20], digits[1][:20])
    assert sorted(builds) == ["shufflenet_v2_x0_5", "squeezenet1_1"]
    assert search.best_estimator_.named_steps["images"].n_features_out_ in (512, 1024)


def PretrainedPipeline():
    extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, image_size=64)
    return Pipeline([("images", extractor), ("clf", LogisticRegression(max_iter=50, tol=1))])


def test_search_over_a_downstream_penalty(small_net, digits):
    pipe = Pipeline([("images", PretrainedFeatureExtractor(small_net)), ("clf", logistic())])
    grid = {"clf__logisticregression__C": [0.01, 1.0], "images__pooling": ["avg", "max"]}
    search = GridSearchCV(pipe, grid, cv=3).fit(*digits)
    assert search.best_score_ > 0.8


def test_clone_keeps_parameters_and_shares_the_network(small_net, digits, builds):
    clf = tuner(small_net).fit(*digits)
    copy = clone(clf)
    assert not hasattr(copy, "trained_state_")
    np.testing.assert_array_equal(
        copy.fit(*digits).predict_proba(digits[0]), clf.predict_proba(digits[0])
    )
    assert len(builds) == 1


def test_sample_weight_is_routed(small_net, digits):
    import sklearn

    images, labels = digits
    weights = np.where(labels == 0, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = tuner(small_net, unfreeze_depth=0)
        clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"C": [1.0]}, cv=2)
        search.fit(images, labels, sample_weight=weights)
    # Class 0 has no weight in fit, so it is never predicted.
    assert 0 not in search.predict(images)


def test_html_repr_and_params(small_net):
    clf = tuner("efficientnet_lite0", unfreeze_depth=2)
    assert "unfreeze_depth" in clf._repr_html_()
    assert clf.get_params()["unfreeze_depth"] == 2
    assert "unfreeze_depth=2" in repr(clf)


def test_threads_share_one_estimator(small_net, digits):
    from concurrent.futures import ThreadPoolExecutor

    extractor = PretrainedFeatureExtractor(small_net)
    expected = extractor.transform(digits[0])
    with ThreadPoolExecutor(4) as pool:
        for features in pool.map(extractor.transform, [digits[0]] * 8):
            np.testing.assert_allclose(features, expected, atol=1e-6)
    assert torch.is_grad_enabled()
