"""Bags: rows of several images, of the extractor and of the fine-tuners."""

import itertools
from typing import get_args

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torchvision.transforms import v2

from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
)
from sklearn_featx._typing import BagPooling
from sklearn_featx.exceptions import ImageError, ImageWarning, InputError
from sklearn_featx.images import bag_poolings, pool_bag
from sklearn_featx.training._bags import pool_bags

SIZES = [2, 1, 3] * 4


@pytest.fixture
def bags(digit_files):
    """Twelve lists of one to three files, and labels."""
    paths, labels = digit_files
    ends = np.cumsum([0, *SIZES])
    found = [paths[a:b] for a, b in itertools.pairwise(ends)]
    return found, labels[ends[:-1]]


@pytest.fixture
def tower(small_net):
    return {"backbone": small_net, "image_size": 8, "cache": False}


def reader(pooling="mean", **options):
    return ImageReader(bag_pooling=pooling, **options)


@pytest.mark.parametrize("pooling", ["mean", "max+std+min"])
@pytest.mark.parametrize("cache", [False, True])
def test_a_bag_is_the_pooled_rows_of_its_images(bags, tower, tmp_path, pooling, cache):
    X, _ = bags
    store = FeatureStore(tmp_path) if cache else False
    single = PretrainedFeatureExtractor(**tower | {"cache": store})
    rows = single.fit_transform([path for bag in X for path in bag])
    ends = np.cumsum(SIZES)[:-1]
    wanted = [
        np.concatenate([getattr(part, name)(axis=0) for name in pooling.split("+")])
        for part in np.split(rows, ends)
    ]
    pooled = single.set_params(reader=reader(pooling)).fit_transform(X)
    np.testing.assert_array_equal(pooled, wanted)
    names = single.get_feature_names_out()
    assert len(names) == pooled.shape[1]
    assert [name.rsplit("_", 2)[-2] for name in names[:: rows.shape[1]]] == pooling.split("+")


def test_each_image_is_cached_once_for_all_uses(bags, tower, tmp_path, monkeypatch):
    X, _ = bags
    # The content of files that were just written would be read again.
    monkeypatch.setattr("sklearn_featx._digest._RACY_NS", 0)
    store = FeatureStore(tmp_path)
    extractor = PretrainedFeatureExtractor(**tower | {"cache": store}, reader=reader())
    first = extractor.fit_transform(X)
    assert store.info().n_rows == sum(SIZES)
    # Other bags of the same images, and the images alone, read no file.
    monkeypatch.setattr("pathlib.Path.read_bytes", None)
    again = extractor.transform(X[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    extractor.set_params(reader__bag_pooling=None).transform([path for bag in X for path in bag])


def test_lists_of_paths_are_no_rows_of_numbers(bags, tower):
    X, _ = bags
    extractor = PretrainedFeatureExtractor(**tower, reader=reader())
    wanted = extractor.fit_transform(X[:3])
    extractor.set_params(reader__image_shape=(8, 8))
    np.testing.assert_array_equal(extractor.fit_transform(X[:3]), wanted)


@pytest.mark.parametrize(
    "hold",
    [
        lambda X: pd.Series(X),
        lambda X: pd.DataFrame({"photos": X}),
        lambda X: pl.Series(X),
        lambda X: pl.DataFrame({"photos": X}),
        lambda X: [tuple(bag) for bag in X],
        lambda X: [np.array(bag) for bag in X],
        lambda X: pd.DataFrame([[*bag, *[None] * (3 - len(bag))] for bag in X]),
        lambda X: np.array([[*bag, *[None] * (3 - len(bag))] for bag in X], object),
        lambda X: [[Image.open(path) for path in bag] for bag in X],
        lambda X: [[np.asarray(Image.open(path)) for path in bag] for bag in X],
        lambda X: [np.stack([np.asarray(Image.open(path)) for path in b])[..., None] for b in X],
    ],
)
def test_whatever_holds_bags(bags, tower, hold):
    X, _ = bags
    extractor = PretrainedFeatureExtractor(**tower, reader=reader("mean+max"))
    wanted = extractor.fit_transform(X[:4])
    np.testing.assert_array_equal(extractor.fit_transform(hold(X[:4])), wanted)


def test_single_images_are_bags_of_one(bags, tower, digits):
    paths = [bag[0] for bag in bags[0]]
    extractor = PretrainedFeatureExtractor(**tower)
    wanted = extractor.fit_transform(paths)
    extractor.set_params(reader=reader())
    np.testing.assert_array_equal(extractor.fit_transform(paths), wanted)
    whole = extractor.fit_transform(digits[0][:4])
    assert whole.shape == (4, wanted.shape[1])
    five_axes = digits[0][:4].reshape(2, 2, 8, 8, 1)
    np.testing.assert_allclose(
        extractor.fit_transform(five_axes), whole.reshape(2, 2, -1).mean(axis=1), rtol=1e-6
    )


def test_without_a_pooling_one_line_says_so(bags, tower):
    with pytest.raises(ImageError, match=r"row 0: is a list of 2 entries.*bag_pooling") as caught:
        PretrainedFeatureExtractor(**tower).fit(bags[0])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("pooling", ["median", "mean+", 3, ""])
def test_unknown_poolings(bags, tower, pooling):
    with pytest.raises((InputError, ValueError), match="bag_pooling"):
        PretrainedFeatureExtractor(**tower, reader=reader(pooling)).fit(bags[0])


@pytest.mark.parametrize("missing", [None, np.nan, 3, pd.NA], ids=str)
def test_a_missing_image_makes_its_bag_unreadable(bags, tower, missing):
    path = bags[0][0][0]
    extractor = PretrainedFeatureExtractor(**tower, reader=reader("mean"), on_error="nan")
    with pytest.warns(ImageWarning):
        rows = extractor.fit(bags[0]).transform([[path, missing], [path], (path, 3)])
    assert np.isnan(rows).all(axis=1).tolist() == [True, False, False]
    assert [(f.row, f.reason[:14]) for f in extractor.failures_] == [(0, "image 1 of 2: ")]
    with pytest.raises(ImageError, match="row 1: image 1 of 2: "):
        extractor.set_params(on_error="raise").transform([[path], [path, missing]])


def test_a_missing_image_of_a_group(bags, tower):
    path = bags[0][0][0]
    table = pd.DataFrame({"patient": [0, 0, 1], "path": [path, None, path]})
    extractor = PretrainedFeatureExtractor(**tower, reader=reader("mean"), on_error="nan")
    with pytest.warns(ImageWarning):
        rows = extractor.fit(bags[0]).transform(table.groupby("patient")["path"].agg(list))
    assert np.isnan(rows).all(axis=1).tolist() == [True, False]


def test_unreadable_bags(bags, tower, tmp_path):
    X = list(bags[0])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    X[1], X[2] = [], [X[2][0], str(broken)]
    extractor = PretrainedFeatureExtractor(**tower, reader=reader())
    with pytest.raises(ImageError, match="row 1: is an empty list"):
        extractor.fit(X)
    X[1] = X[3]
    with pytest.raises(ImageError, match=r"row 2 \(.*broken.png'\): image 1 of 2: "):
        extractor.fit_transform(X)
    X[1] = []
    extractor.set_params(on_error="nan")
    with pytest.warns(ImageWarning, match="2 of 12"):
        rows = extractor.fit_transform(X)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True] + [False] * 9
    assert [(f.row, f.path) for f in extractor.failures_] == [(1, None), (2, str(broken))]


@pytest.mark.parametrize(
    ("depth", "pooling", "head_layers"),
    [(0, "mean+max", "all"), (1, "std", "last"), (2, "mean+max", "all"), ("all", "mean", "all")],
)
def test_fine_tuning_on_bags(bags, small_net, depth, pooling, head_layers):
    X, y = bags
    model = FineTuneClassifier(
        small_net,
        unfreeze_depth=depth,
        head_layers=head_layers,
        image_size=8,
        reader=reader(pooling),
        max_epochs=2,
        batch_size=5,
        random_state=0,
        cache=False,
    ).fit(X, y)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (12, len(np.unique(y)))
    assert np.isfinite(probabilities).all()
    # A prediction does not depend on the bags beside it.
    np.testing.assert_allclose(model.predict_proba(X[4:6]), probabilities[4:6], rtol=1e-4)
    embedding = model.transform(X)
    assert embedding.shape == (12, len(model.get_feature_names_out()))


def test_the_tail_pools_as_the_flow_does(bags, small_net):
    """With a learning rate of 0, a trained tail gives the embedding of the frozen network."""
    X, y = bags
    embeddings = [
        FineTuneClassifier(
            small_net,
            unfreeze_depth=depth,
            image_size=8,
            reader=reader("mean+max+min+std"),
            max_epochs=1,
            lr=1e-12,
            cache=False,
        )
        .fit(X, y)
        .transform(X)
        for depth in (0, 2)
    ]
    np.testing.assert_allclose(embeddings[1], embeddings[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_views", [2, None])
def test_augmented_bags(bags, small_net, n_views):
    X, y = bags
    model = FineTuneRegressor(
        small_net,
        unfreeze_depth=1,
        image_size=8,
        reader=reader(),
        n_views=n_views,
        max_epochs=2,
        random_state=0,
        cache=False,
    )
    plain, same, light = (
        clone(model).set_params(augment=augment).fit(X, y.astype(float)).predict(X)
        for augment in (None, v2.Identity(), "light")
    )
    np.testing.assert_allclose(same, plain, rtol=1e-4)
    assert not np.allclose(light, plain, rtol=1e-4)


def test_both_poolings_of_bags_know_the_same_names():
    rows = np.float32([[1, 2], [4, 0], [9, 9]])
    name = "+".join(get_args(BagPooling))
    assert bag_poolings(name) == get_args(BagPooling)
    pooled = pool_bags(torch.from_numpy(rows), torch.tensor([3]), bag_poolings(name))
    np.testing.assert_allclose(pooled[0], pool_bag(rows, name), rtol=1e-6)
