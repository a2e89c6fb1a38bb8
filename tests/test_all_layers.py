"""Features of all layers side by side: columns, names, scales, and shared rows."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.utils import get_tags
from torch import nn

from sklearn_featx import (
    FeatureStore,
    ImageReader,
    PretrainedFeatureExtractor,
    layer_sweep,
)
from sklearn_featx.backbones import get_backbone
from sklearn_featx.exceptions import ImageError
from sklearn_featx.training import Scaling


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def make(**parameters):
    return PretrainedFeatureExtractor(image_size=32, **parameters)


def test_all_is_every_stage(images):
    everything = make(layer="all").fit_transform(images)
    assert everything.shape == (6, 2096)
    assert np.array_equal(everything[:, -1280:], make().fit_transform(images))


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.RandomWeightsWarning")
@pytest.mark.parametrize(
    ("backbone", "widths"),
    [
        ("efficientnet_lite0", [32, 16, 24, 40, 80, 112, 192, 320, 1280]),
        # The first operation of a downsampling moves channels to the end.
        ("convnext_tiny", [96, 96, 192, 192, 384, 384, 768, 768]),
        # The first operations of a downsampling lay four positions side by side.
        ("swin_t", [96, 96, 192, 192, 384, 384, 768, 768]),
        ("squeezenet1_1", [64, 128, 128, 256, 256, 384, 384, 512, 512]),
        ("resnet18", [64, 64, 128, 256, 512]),
    ],
)
def test_stages_can_be_named_by_their_layers(backbone, widths, images):
    weights = "DEFAULT" if backbone == "efficientnet_lite0" else None
    layers = [stage.layer for stage in get_backbone(backbone, weights).stages]
    everything = make(backbone=backbone, weights=weights, layer="all").fit(images)
    named = make(backbone=backbone, weights=weights, layer=layers).fit(images)
    names = everything.get_feature_names_out().tolist()
    assert names == named.get_feature_names_out().tolist()
    assert [sum(f"{backbone}_{layer}_avg_" in name for name in names) for layer in layers] == widths
    assert np.array_equal(everything.transform(images), named.transform(images))


def test_poolings_stand_side_by_side(images):
    both = make(layer=["blocks.1", "blocks.4"], pooling=["avg", "max"]).fit_transform(images)
    parts = [
        make(layer=layer, pooling=pooling).fit_transform(images)
        for layer in ("blocks.1", "blocks.4")
        for pooling in ("avg", "max")
    ]
    assert np.array_equal(both, np.concatenate(parts, axis=1))


def test_layers_keep_the_order_that_they_are_given_in(images):
    # github.com/huggingface/pytorch-image-models/pull/2239
    given = ["blocks.4", "conv_stem", "blocks.1"]
    parts = [make(layer=layer).fit_transform(images) for layer in given]
    assert np.array_equal(make(layer=given).fit_transform(images), np.concatenate(parts, axis=1))


def test_names_say_layer_and_pooling():
    names = make(layer="all", pooling=["avg", "max"]).get_feature_names_out()
    assert len(names) == len(set(names)) == 2 * 2096
    assert names[0] == "efficientnet_lite0_act1_avg_00"
    assert "efficientnet_lite0_blocks.4_max_012" in names
    assert names[-1] == "efficientnet_lite0_flatten_max_1279"
    assert make().get_feature_names_out()[12] == "efficientnet_lite0_0012"


def test_several_poolings_of_the_default_layer_have_names(images):
    extractor = make(pooling=["avg", "max"]).set_output(transform="pandas")
    columns = extractor.fit_transform(images[:2]).columns
    assert columns.is_unique
    assert list(columns[[0, -1]]) == ["efficientnet_lite0_avg_0000", "efficientnet_lite0_max_1279"]


@pytest.mark.parametrize("name", ["layer", "pooling"])
def test_repeated_layers_and_poolings_are_refused(images, name):
    values = {"layer": ["blocks.1", "blocks.0", "blocks.1"], "pooling": ("max", "max")}[name]
    with pytest.raises(ValueError, match=rf"{name}=\[.* occurs twice. Name each once"):
        make(layer="blocks.1").set_params(**{name: values}).fit(images)


@pytest.mark.parametrize("pooling", [[], ["avg", "mean"], [None]])
def test_unknown_poolings_are_refused(images, pooling):
    with pytest.raises(ValueError, match=r"pooling=.*: expected some of"):
        make(pooling=pooling).fit(images)


def test_rows_are_shared_with_other_layers_and_with_the_sweep(images, trunk_rows, tmp_path):
    store = FeatureStore(tmp_path)
    make(layer="all", pooling=["avg", "max"], cache=store).fit_transform(images)
    assert sum(trunk_rows) == len(images)
    make(layer="blocks.4", cache=store).fit_transform(images)
    make(pooling="max", cache=store).fit_transform(images)
    layer_sweep(make(cache=store), RidgeClassifier(), images, [0, 1] * 3, cv=2)
    assert sum(trunk_rows) == len(images)


# --- normalize="layer" ---------------------------------------------------------------------------


def test_layers_have_the_same_total_variance(images):
    extractor = make(layer="all", normalize="layer")
    features = extractor.fit_transform(images).astype(np.float64)
    assert np.allclose(features.mean(axis=0), 0, atol=1e-5)
    widths = [shape[0] for shape in extractor.output_shapes_]
    totals = [part.var(axis=0).sum() for part in np.split(features, np.cumsum(widths)[:-1], axis=1)]
    assert np.allclose(totals, 2096 / 9, rtol=1e-3)


def test_the_scale_is_that_of_fit(images):
    extractor = make(layer="all", normalize="layer").fit(images)
    row = extractor.transform(images[:1])
    assert np.array_equal(row, extractor.transform(images)[:1])
    plain = make(layer="all").transform(images[:1])
    assert np.allclose(row, (plain - extractor.mean_) / extractor.scale_, atol=1e-5)


def test_unfitted_use_says_what_is_missing(images):
    with pytest.raises(NotFittedError, match=r"normalize='layer'.*call 'fit'"):
        make(normalize="layer").transform(images)
    assert get_tags(make(normalize="layer")).requires_fit
    assert not get_tags(make()).requires_fit
    assert not get_tags(make(normalize=True)).requires_fit
    fitted = make(normalize="layer").fit(images)
    assert not hasattr(clone(fitted), "scale_")


def test_fit_transform_computes_each_image_once(images, trunk_rows):
    make(layer="all", normalize="layer").fit_transform(images + 1)
    assert sum(trunk_rows) == len(images)


def test_constant_columns_are_not_blown_up():
    rows = np.random.default_rng(0).normal(size=(50, 5))
    rows[:, 1] = 1 + 1e-9 * rows[:, 1]
    scaling = Scaling.of(rows, None, [2, 3])
    assert np.abs(scaling.apply(rows)[:, 1]).max() < 1e-4


def test_one_layer_has_one_spread():
    rows = np.random.default_rng(0).normal(size=(50, 5)) * [1, 2, 3, 4, 5]
    assert len(set(Scaling.of(rows, None).spread)) == 1
    assert np.array_equal(Scaling.of(rows, None).spread, Scaling.of(rows, None, [5]).spread)
    assert np.array_equal(Scaling.of(np.ones((3, 2)), None, [1, 1]).spread, [1, 1])


@pytest.mark.parametrize("change", ["weights", "layer", "pooling", "image_size"])
def test_scales_of_another_network_are_not_applied(change, small_net, digits):
    extractor = PretrainedFeatureExtractor(small_net, layer="all", normalize="layer", image_size=16)
    extractor.fit(digits[0])
    assert np.isfinite(extractor.transform(digits[0])).all()
    if change == "weights":
        small_net.stem[0].weight.data *= 30
    else:
        extractor.set_params(
            **{change: {"layer": None, "pooling": "max", "image_size": 24}[change]}
        )
    words = r"scales were learned from another .* Call fit again"
    if change == "weights":
        words = r"is not the one that this estimator was fitted on.* Fit again"
    with pytest.raises(ValueError, match=words):
        extractor.transform(digits[0])
    extractor.fit_transform(digits[0])


class _Reciprocal(nn.Module):
    def forward(self, x):
        return (1 / (x - 0.5)).mean((2, 3))


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.ImageWarning")
@pytest.mark.parametrize("bag_pooling", [None, "mean"])
def test_an_image_with_infinite_features_is_named_and_spoils_no_other_row(bag_pooling):
    gray = [np.full((4, 4), value) for value in (0.1, 0.9, 0.5, 0.3)]
    gray[1] = None
    X = [[image] for image in gray] if bag_pooling else gray
    reader = ImageReader(bag_pooling=bag_pooling)
    extractor = PretrainedFeatureExtractor(
        _Reciprocal(), normalize="layer", on_error="nan", reader=reader, image_size=4
    )
    with pytest.raises(ImageError, match="NaN or infinite") as caught:
        extractor.fit(X)
    assert caught.value.row == 2
    assert not hasattr(extractor, "mean_")
    rows = extractor.fit_transform([X[0], X[1], X[3]])
    assert np.isfinite(rows).all(axis=1).tolist() == [True, False, True]
