"""Pooling against its formulas in NumPy, for each layout."""

import numpy as np
import pytest
import torch

from sklearn_featx.backbones._pooling import Pool
from sklearn_featx.exceptions import UnknownLayerError

RULES = ["avg", "max", "avgmax", "gem"]
LAYOUTS = {
    "map": ((2, 5, 3, 4), {}),
    "map, channels last": ((2, 3, 4, 5), {"channels_last": True}),
    "tokens": ((2, 12, 5), {}),
    "tokens with two prefixes": ((2, 14, 5), {"prefix_tokens": 2}),
    "signal": ((2, 5, 12), {"tokens": False}),
    "volume": ((2, 5, 2, 2, 3), {}),
}


def positions_last(x, settings):
    """(n, channels, positions) in float64."""
    x = x.numpy().astype(np.float64)
    if x.ndim == 3 and settings.get("tokens", True):
        x = np.moveaxis(x[:, settings.get("prefix_tokens", 0) :], -1, 1)
    elif x.ndim == 4 and settings.get("channels_last"):
        x = np.moveaxis(x, -1, 1)
    return x.reshape(len(x), x.shape[1], -1)


def formula(x, rule):
    if rule == "avg":
        return x.mean(2)
    if rule == "max":
        return x.max(2)
    if rule == "avgmax":
        return (x.mean(2) + x.max(2)) / 2
    return (np.maximum(x, 1e-6) ** 3).mean(2) ** (1 / 3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rule_is_its_formula(layout, rule):
    shape, settings = LAYOUTS[layout]
    x = torch.randn(shape)
    expected = formula(positions_last(x, settings), rule)
    np.testing.assert_allclose(Pool(rule, **settings)(x).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [*RULES, "flatten", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_predicted_shape_is_the_real_one(layout, rule):
    shape, settings = LAYOUTS[layout]
    pool = Pool(rule, **settings)
    assert pool.output_shape(shape[1:]) == tuple(pool(torch.randn(shape)).shape[1:])


def test_flatten_has_channels_first_whatever_the_layout():
    x = torch.randn(2, 5, 3, 4)
    flat = Pool("flatten")(x)
    assert torch.equal(flat, Pool("flatten", channels_last=True)(x.permute(0, 2, 3, 1)))
    assert torch.equal(flat[0], x[0].reshape(-1))


def test_cls_is_the_first_token():
    x = torch.randn(2, 7, 3)
    pool = Pool("cls", prefix_tokens=1)
    assert torch.equal(pool(x), x[:, 0])
    assert pool.output_shape((7, 3)) == (3,)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((2, 7, 3), {}), ((2, 3, 4, 4), {"prefix_tokens": 1}), ((2, 3, 7), {"tokens": False})],
)
def test_cls_without_a_class_token_is_an_error(shape, settings):
    with pytest.raises(UnknownLayerError, match="class token"):
        Pool("cls", **settings)(torch.randn(shape))
    with pytest.raises(UnknownLayerError, match="class token"):
        Pool("cls", **settings).output_shape(shape[1:])


@pytest.mark.parametrize("rule", [*RULES, "flatten", "cls", None])
def test_vectors_stay_as_they_are(rule):
    x = torch.randn(2, 3)
    assert torch.equal(Pool(rule)(x), x)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x = torch.randn(4, 5, 3, 3)
    for rule in RULES:
        # Powers are computed in vectors of several rows: the last bit may differ.
        torch.testing.assert_close(Pool(rule)(x)[1:2], Pool(rule)(x[1:2]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("pooling", [*RULES, "flatten", None])
@pytest.mark.parametrize("name", ["resnet18", "swin_t", "mobilenet_v3_small"])
def test_features_of_every_stage_and_pooling_are_predicted(name, pooling, cut):
    backbone = cut(name)
    x = torch.randn(2, 3, 64, 64)
    trunk = backbone.tapped(list(range(1, len(backbone.stages) + 1)))
    with torch.no_grad():
        real = [tuple(backbone.pool(pooling)(a).shape[1:]) for a in trunk(x)]
    predicted = [
        backbone.pool(pooling).output_shape(s) for s in backbone.shapes(trunk, (3, 64, 64))
    ]
    assert predicted == real
