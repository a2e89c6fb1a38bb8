"""Pooling against its formulas in NumPy, for each layout."""

import itertools

import numpy as np
import pytest
import torch

from sklearn_featx.backbones import _pooling
from sklearn_featx.backbones._pooling import Pool
from sklearn_featx.exceptions import UnknownLayerError

RULES = ["avg", "max", "avgmax", "gem"]
GRIDS = ["grid2", "grid3"]
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


@pytest.mark.parametrize("rule", [*RULES, *GRIDS, "flatten", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_predicted_shape_is_the_real_one(layout, rule):
    shape, settings = LAYOUTS[layout]
    pool = Pool(rule, **settings)
    assert pool.output_shape(shape[1:]) == tuple(pool(torch.randn(shape)).shape[1:])


PLACES = {
    "map": (3, 4),
    "map, channels last": (3, 4),
    "tokens": (12,),
    "tokens with two prefixes": (12,),
    "signal": (12,),
    "volume": (2, 2, 3),
}


def cell_means(x, places, n_cells):
    """Means of cells in NumPy, (n, channels * cells)."""
    bounds = []
    for length in places:
        cells = min(n_cells, length)
        starts = [int(np.floor(i * length / cells)) for i in range(cells)]
        stops = [int(np.ceil((i + 1) * length / cells)) for i in range(cells)]
        bounds.append([slice(*pair) for pair in zip(starts, stops, strict=True)])
    x = x.reshape(*x.shape[:2], *places)
    means = [x[(..., *cell)].mean(tuple(range(2, x.ndim))) for cell in itertools.product(*bounds)]
    return np.stack(means, axis=2).reshape(len(x), -1)


@pytest.mark.parametrize("n_cells", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grid_is_the_mean_of_each_cell(layout, n_cells):
    shape, settings = LAYOUTS[layout]
    x = torch.randn(shape)
    maps = positions_last(x, settings)
    expected = cell_means(maps, PLACES[layout], n_cells)
    pool = Pool(f"grid{n_cells}", **settings)
    np.testing.assert_allclose(pool(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    # The same numbers as weights of positions, as heat maps and other devices compute them.
    weighted = maps @ pool.cell_weights(shape[1:]).T
    np.testing.assert_allclose(weighted.reshape(len(x), -1), expected, rtol=1e-9, atol=1e-12)


def test_a_single_map_keeps_its_memory_format(monkeypatch):
    # PyTorch's pooling is twelve times slower where the strides of one row are changed.
    strides = []
    means = _pooling._ADAPTIVE_MEANS[2]

    def spy(maps, cells):
        strides.append(maps.stride())
        return means(maps, cells)

    monkeypatch.setitem(_pooling._ADAPTIVE_MEANS, 2, spy)
    maps = torch.randn(1, 8, 6, 6).to(memory_format=torch.channels_last)
    Pool("grid3")(maps)
    assert strides == [maps.stride()]


@pytest.mark.parametrize("prefix_tokens", [0, 1])
def test_a_square_number_of_tokens_is_a_map(prefix_tokens):
    tokens = torch.randn(2, prefix_tokens + 16, 3)
    maps = tokens[:, prefix_tokens:].movedim(-1, 1).reshape(2, 3, 4, 4)
    found = Pool("grid2", prefix_tokens=prefix_tokens)(tokens)
    torch.testing.assert_close(found, Pool("grid2")(maps))


@pytest.mark.parametrize("rule", GRIDS)
def test_cells_of_a_mirrored_map_are_mirrored(rule):
    x, n_cells = torch.randn(2, 5, 7, 7), int(rule[-1])
    cells = Pool(rule)(x).reshape(2, 5, n_cells, n_cells)
    mirrored = Pool(rule)(x.flip(3)).reshape(2, 5, n_cells, n_cells)
    torch.testing.assert_close(mirrored, cells.flip(3))


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


@pytest.mark.parametrize("rule", [*RULES, *GRIDS, "flatten", "cls", None])
def test_vectors_stay_as_they_are(rule):
    x = torch.randn(2, 3)
    assert torch.equal(Pool(rule)(x), x)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x = torch.randn(4, 5, 3, 3)
    for rule in (*RULES, *GRIDS):
        # Powers are computed in vectors of several rows: the last bit may differ.
        torch.testing.assert_close(Pool(rule)(x)[1:2], Pool(rule)(x[1:2]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("pooling", [*RULES, *GRIDS, "flatten", None])
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
