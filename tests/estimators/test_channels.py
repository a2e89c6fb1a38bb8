"""Images of any number of channels, in the extractor and the fine-tuners."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    FineTuneRegressor,
    ImageReader,
    PretrainedFeatureExtractor,
    heat_maps,
    layer_sweep,
    plan_search,
    precompute,
)
from sklearn_featx.exceptions import ImageError, ImageWarning, InputError

RNG = np.random.default_rng(0)
# (n, C, h, w)
STACKS = RNG.integers(0, 256, (8, 5, 12, 12)).astype(np.uint8)
LABELS = np.array([0, 1] * 4)
STACKS[LABELS == 1, 3, :6] //= 4


class Net(nn.Module):
    """Two convolutional stages."""

    def __init__(self, n_channels=3):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(n_channels, 6, 3, stride=2), nn.ReLU())
            self.top = nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.top(self.stem(x)).mean((2, 3))


@pytest.fixture
def extractor():
    return PretrainedFeatureExtractor(Net(), image_size=12, cache=False)


def reading(channels, **options):
    return ImageReader(channels=channels, **options)


def tiff(stack):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "CYX"})
    return file.getvalue()


@pytest.mark.parametrize("channels", [[0, 2, 4], [3]])
def test_a_list_equals_the_array_sliced_by_hand(extractor, channels):
    by_hand = np.moveaxis(STACKS[:, channels], 1, 3)
    wanted = extractor.fit_transform(by_hand)
    chosen = clone(extractor).set_params(reader=reading(channels))
    for X in (STACKS, np.moveaxis(STACKS, 1, 3), list(STACKS), [tiff(stack) for stack in STACKS]):
        np.testing.assert_array_equal(chosen.fit_transform(X), wanted)


@pytest.mark.parametrize("hold", [np.asarray, list, lambda X: [tiff(stack) for stack in X]])
def test_each_is_the_columns_of_the_channels_side_by_side(extractor, hold):
    alone = [extractor.fit_transform(STACKS[:, channel]) for channel in range(5)]
    each = clone(extractor).set_params(reader=reading("each"))
    np.testing.assert_array_equal(each.fit_transform(hold(STACKS)), np.hstack(alone))
    names = each.get_feature_names_out()
    assert names.tolist() == [f"net_channel{c}_{i}" for c in range(5) for i in range(4)]
    assert each.n_features_out_ == 20
    np.testing.assert_array_equal(each.transform(hold(STACKS[::-1])), np.hstack(alone)[::-1])


def test_a_channel_is_cached_once_for_all_uses(extractor, tmp_path, trunk_rows):
    store = FeatureStore(tmp_path)
    extractor.set_params(cache=store, reader=reading("each"))
    rows = extractor.fit_transform(STACKS)
    assert sum(trunk_rows) == store.info().n_rows == 40
    trunk_rows.clear()
    np.testing.assert_array_equal(extractor.transform(np.moveaxis(STACKS, 1, 3)[2:]), rows[2:])
    one = extractor.set_params(reader=reading([3])).fit_transform(STACKS)
    np.testing.assert_array_equal(one, rows[:, 12:16])
    gray = extractor.set_params(reader=None).fit_transform(STACKS[:, 3])
    np.testing.assert_array_equal(gray, one)
    assert not trunk_rows
    extractor.set_params(reader=reading([0, 2, 4])).fit_transform(STACKS)
    assert sum(trunk_rows) == 8


def test_a_channel_of_a_file_is_cached_once_for_all_uses(extractor, tmp_path, trunk_rows):
    files = [tiff(stack) for stack in STACKS[:3]]
    extractor.set_params(cache=FeatureStore(tmp_path), reader=reading("each"))
    rows = extractor.fit_transform(files)
    assert sum(trunk_rows) == 15
    one = extractor.set_params(reader=reading([3])).fit_transform(files)
    np.testing.assert_array_equal(one, rows[:, 12:16])
    assert sum(trunk_rows) == 15
    extractor.set_params(reader=reading([3], value_range=(0, 300))).fit_transform(files)
    assert sum(trunk_rows) == 18


def test_layers_poolings_names_and_frames_of_columns(extractor):
    each = extractor.set_params(reader=reading("each"), layer="all", pooling=["avg", "max"])
    rows = each.set_output(transform="pandas").fit_transform(STACKS)
    assert rows.shape == (8, 5 * 2 * (6 + 4))
    assert rows.columns[0] == "net_stem_avg_channel0_0"
    assert rows.columns[-1] == "net_mean_max_channel4_3"
    alone = clone(extractor).set_params(reader=reading([4])).fit_transform(STACKS)
    for column in ("stem_avg_{}0", "mean_max_{}2"):
        np.testing.assert_array_equal(
            rows["net_" + column.format("channel4_")], alone["net_" + column.format("")]
        )


def test_maps_without_pooling(extractor):
    maps = extractor.set_params(layer="stem", pooling=None).fit_transform(STACKS[:, 1])
    each = extractor.set_params(reader=reading("each")).fit_transform(STACKS)
    assert each.shape == (8, 30, 5, 5)
    np.testing.assert_array_equal(each[:, 6:12], maps)


def test_bags_of_stacks(extractor):
    X = [list(STACKS[:3]), list(STACKS[3:4]), list(STACKS[4:])]
    alone = extractor.set_params(reader=reading("each")).fit_transform(STACKS)
    extractor.set_params(reader=reading("each", bag_pooling="mean+max"))
    rows = extractor.fit_transform(X)
    wanted = [
        np.concatenate([part.mean(0), part.max(0)]) for part in (alone[:3], alone[3:4], alone[4:])
    ]
    np.testing.assert_array_equal(rows, wanted)
    names = extractor.get_feature_names_out()
    assert (names[0], names[20]) == ("net_mean_channel0_0", "net_max_channel0_0")
    five_axes = extractor.transform(STACKS.reshape(4, 2, 5, 12, 12))
    np.testing.assert_array_equal(five_axes[1, :20], alone[2:4].mean(0))


def test_unreadable_images_are_rows_of_nan(extractor):
    extractor.set_params(reader=reading("each"), on_error="nan")
    X = [STACKS[0], None, b"no image", STACKS[1, :4], STACKS[2]]
    with pytest.warns(ImageWarning):
        rows = extractor.fit_transform(X)
    assert np.isnan(rows).all(1).tolist() == [False, True, True, True, False]
    assert [failure.row for failure in extractor.failures_] == [1, 2, 3]
    assert "4 channels, and others have 5" in extractor.failures_[2].reason
    with pytest.warns(ImageWarning):
        assert np.isnan(extractor.transform([None])).all()
    floats = STACKS / 255
    floats[2, 4, 0, 0] = np.nan
    with pytest.warns(ImageWarning):
        rows = extractor.fit_transform(floats)
    assert np.isnan(rows).any(1).tolist() == [i == 2 for i in range(8)]


def test_another_number_of_channels_than_in_fit(extractor):
    extractor.set_params(reader=reading("each")).fit(STACKS)
    with pytest.raises(InputError, match="4 channels, and others have 5"):
        extractor.transform(STACKS[:, :4])
    with pytest.raises(ImageError, match="row 0: the image has 4 channels"):
        extractor.transform(list(STACKS[:, :4]))
    assert clone(extractor).fit_transform(STACKS[:, :4]).shape == (8, 16)
    with pytest.raises(NotFittedError, match="number of channels"):
        clone(extractor).get_feature_names_out()


@pytest.mark.parametrize(
    ("channels", "shape", "reason"),
    [
        ("rgb", (5, 12, 12), r"no axis of 1, 3 or 4.*channels='each'"),
        ("rgb", (12, 12, 2), "channels='each'"),
        ("rgb", (4, 12, 12), r"four channels first.*channels='each'"),
        ([0, 1], (5, 12, 12), r"channels=\[0, 1\] gives images of 2.*'net' reads 3"),
        ([0, 1, 2, 3], (5, 12, 12), "gives images of 4 channels"),
        ([0, 1, 7], (5, 12, 12), "asks for 7"),
        ("RGB", (5, 12, 12), "expected 'rgb', 'each'"),
    ],
)
def test_one_line_names_the_parameter(extractor, channels, shape, reason):
    extractor.set_params(reader=reading(channels))
    with pytest.raises(InputError, match=reason) as raised:
        extractor.fit_transform(np.zeros((2, *shape), np.uint8))
    assert len(str(raised.value)) <= 300
    assert "\n" not in str(raised.value)


def test_own_networks_take_the_channels_of_their_first_convolution():
    net = Net(5).eval()
    extractor = PretrainedFeatureExtractor(net, cache=False)
    X = RNG.normal(size=(4, 5, 12, 12)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(X)).numpy()
    for holder in (X, np.moveaxis(X, 1, 3), list(X), torch.from_numpy(X)):
        np.testing.assert_allclose(extractor.fit_transform(holder), wanted, atol=1e-5)
    assert extractor.get_feature_names_out().tolist() == ["net_0", "net_1", "net_2", "net_3"]
    with torch.no_grad():
        wanted = net(torch.from_numpy(STACKS / 255).float()).numpy()
    for holder in (STACKS, [tiff(stack) for stack in STACKS]):
        np.testing.assert_allclose(extractor.fit_transform(holder), wanted, atol=1e-5)
    smaller = extractor.set_params(image_size=8).fit_transform(X)
    assert smaller.shape == (4, 4)
    chosen = extractor.set_params(image_size=None, reader=reading([4, 3, 2, 1, 0]))
    with torch.no_grad():
        wanted = net(torch.from_numpy(X[:, ::-1].copy())).numpy()
    np.testing.assert_allclose(chosen.fit_transform(X), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("X", "channels", "reason"),
    [
        (STACKS[:, :3], "rgb", "no axis of 5 channels"),
        ([Image.new("RGB", (12, 12))], "rgb", "3 channels, and the network reads 5"),
        (STACKS, "each", r"images of 1 channel, and the network 'net' reads 5"),
        (STACKS, [0, 1, 2], r"images of 3 channels, and the network 'net' reads 5"),
    ],
)
def test_own_networks_refuse_other_images(X, channels, reason):
    extractor = PretrainedFeatureExtractor(Net(5), cache=False, reader=reading(channels))
    with pytest.raises((InputError, ImageError), match=reason) as raised:
        extractor.fit_transform(X)
    assert len(str(raised.value)) <= 300


def test_the_first_convolution_is_that_of_the_image():
    class Late(nn.Module):
        """Its first module is the last one."""

        def __init__(self, n_channels):
            super().__init__()
            self.top = nn.Conv2d(6, 4, 3)
            self.stem = nn.Conv2d(n_channels, 6, 3)

        def forward(self, x):
            return self.top(self.stem(x)).mean((2, 3))

    class Shuffled(nn.Module):
        """Pixels become channels before the first convolution."""

        def __init__(self):
            super().__init__()
            self.rearrange = nn.PixelUnshuffle(2)
            self.stem = nn.Conv2d(12, 4, 3)

        def forward(self, x):
            return self.stem(self.rearrange(x)).mean((2, 3))

    class Placed(nn.Module):
        """Two channels of positions are added before the first convolution."""

        def __init__(self, n_channels):
            super().__init__()
            self.stem = nn.Conv2d(n_channels + 2, 4, 3)

        def forward(self, x):
            return self.stem(torch.cat([x, torch.zeros_like(x[:, :2])], dim=1)).mean((2, 3))

    def shape(net, X):
        return PretrainedFeatureExtractor(net, cache=False).fit_transform(X).shape

    assert shape(Late(3), STACKS[:, :3]) == (8, 4)
    assert shape(Late(5), STACKS) == (8, 4)
    assert shape(Shuffled(), STACKS[:, :3]) == (8, 4)
    assert shape(Placed(3), STACKS[:, :3]) == (8, 4)
    assert shape(Placed(5), STACKS) == (8, 4)


def test_fine_tuning_own_networks_of_five_channels():
    model = FineTuneClassifier(Net(5), unfreeze_depth="all", max_epochs=2, random_state=0)
    X = STACKS / np.float32(64) - 2
    assert model.fit(X, LABELS).predict_proba(X).shape == (8, 2)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_fine_tuning_at_depth_0(extractor):
    model = FineTuneClassifier(
        Net(), image_size=12, cache=False, unfreeze_depth=0, reader=reading("each"), random_state=0
    ).fit(STACKS, LABELS)
    embedding = model.transform(STACKS)
    names = model.get_feature_names_out()
    assert embedding.shape == (8, len(names))
    assert names[-1] == "finetuneclassifier_top_avg_channel4_3"
    each = extractor.set_params(reader=reading("each")).fit_transform(STACKS)
    np.testing.assert_allclose(embedding[:, -20:], each, atol=1e-6)
    assert model.score(STACKS, LABELS) > 0.5


@pytest.mark.parametrize("head_layers", ["last", "all"])
@pytest.mark.parametrize("pooling", [None, "mean+max"])
def test_fine_tuning_a_tail_reads_all_channels(head_layers, pooling):
    model = FineTuneRegressor(
        Net(),
        image_size=12,
        unfreeze_depth=1,
        head_layers=head_layers,
        max_epochs=2,
        reader=reading("each", bag_pooling=pooling),
        random_state=0,
    )
    X = STACKS if pooling is None else STACKS.reshape(4, 2, 5, 12, 12)
    y = LABELS[: len(X)].astype(float)
    model.fit(X, y)
    n_parts = 5 * (1 if pooling is None else 2)
    width = 4 if head_layers == "last" else 4 + 9 * 6
    assert model.n_embedding_ == n_parts * width == model.transform(X).shape[1]
    assert len(model.get_feature_names_out()) == model.n_embedding_
    before = model.predict(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), before)
    # Every channel counts.
    for channel in range(5):
        changed = X.copy()
        changed[..., channel, :, :] = 255 - changed[..., channel, :, :]
        assert np.abs(model.predict(changed) - before).max() > 0
    model.partial_fit(X, y)
    assert np.abs(model.predict(X) - before).max() > 0


def test_augmentation_moves_all_channels_of_an_image_alike():
    def flip(image):
        return image.flip(-1) if torch.rand(()) < 0.5 else image

    stack = np.stack([STACKS[:4, 0], 255 - STACKS[:4, 0], STACKS[:4, 0] // 2], axis=1)
    model = FineTuneClassifier(
        Net(),
        image_size=12,
        unfreeze_depth="all",
        augment=flip,
        n_views=4,
        max_epochs=1,
        reader=reading("each"),
        random_state=0,
        cache=False,
    )
    seen = []
    original = model._seen_rows

    def spy(images, rows, backbone):
        seen.append(original(images, rows, backbone))
        return seen[-1]

    model._seen_rows = spy
    model.fit(stack, LABELS[:4])
    (views,) = seen
    flipped = []
    for epoch in range(4):
        views.start_epoch(epoch)
        pixels, sizes = views[[0, 1, 2, 3]][:2]
        assert sizes.tolist() == [3] * 4
        first, negative, darker = pixels[::3], pixels[1::3], pixels[2::3]
        np.testing.assert_array_equal(negative, 255 - first)
        np.testing.assert_array_equal(darker, first // 2)
        flipped += [not (first[i, :, :, 0] == STACKS[i, 0]).all() for i in range(4)]
    assert 0 < sum(flipped) < 16


def test_search_over_channels(extractor):
    pipe = make_pipeline(extractor.set_params(reader=ImageReader()), LogisticRegression())
    grid = {"pretrainedfeatureextractor__reader__channels": ["each", [0, 2, 4], [3]]}
    search = GridSearchCV(pipe, grid, cv=2).fit(STACKS, LABELS)
    assert len(search.cv_results_["params"]) == 3
    assert pickle.loads(pickle.dumps(search)).predict(STACKS).shape == (8,)


@pytest.mark.slow
def test_processes(extractor):
    pipe = make_pipeline(extractor.set_params(reader=reading("each")), LogisticRegression())
    one = cross_val_predict(pipe, STACKS, LABELS, cv=2, method="predict_proba")
    two = cross_val_predict(pipe, STACKS, LABELS, cv=2, method="predict_proba", n_jobs=2)
    np.testing.assert_array_equal(one, two)


def test_a_column_of_files(extractor, tmp_path):
    paths = [tmp_path / f"{i}.tif" for i in range(8)]
    for path, stack in zip(paths, STACKS, strict=True):
        path.write_bytes(tiff(stack))
    table = pd.DataFrame({"stack": list(map(str, paths)), "dose": LABELS})
    columns = make_column_transformer(
        (extractor.set_params(reader=reading("each")), ["stack"]), remainder="passthrough"
    )
    rows = columns.fit_transform(table)
    np.testing.assert_array_equal(rows[:, :20], extractor.fit_transform(STACKS))
    names = columns.get_feature_names_out()
    assert names[0] == "pretrainedfeatureextractor__net_channel0_0"


def test_passes_of_a_search(extractor, tmp_path, trunk_rows):
    extractor.set_params(reader=ImageReader(), cache=FeatureStore(tmp_path))
    pipe = make_pipeline(extractor, LogisticRegression())
    grid = {"pretrainedfeatureextractor__reader__channels": ["each", [0, 2, 4], [3]]}
    search = GridSearchCV(pipe, grid, cv=2)
    plan = plan_search(search, STACKS, LABELS, timed=False)
    # [3] finds the rows of "each".
    assert (plan.n_images, plan.n_passes) == (40, 48)
    search.fit(STACKS, LABELS)
    assert sum(trunk_rows) == 48
    precompute(search, STACKS)
    assert sum(trunk_rows) == 48


def test_heat_maps_need_one_map(extractor):
    pipe = make_pipeline(extractor.set_params(reader=reading("each")), LogisticRegression())
    pipe.fit(STACKS, LABELS)
    with pytest.raises(ValueError, match="channels='each', a score is that of 5 maps"):
        heat_maps(pipe, STACKS)
    pipe.set_params(pretrainedfeatureextractor__reader__channels=[0, 3, 4]).fit(STACKS, LABELS)
    found = heat_maps(pipe, STACKS)
    np.testing.assert_allclose(found.scores, pipe.decision_function(STACKS), atol=1e-5)
    tuned = FineTuneClassifier(
        Net(), image_size=12, unfreeze_depth=0, C=1.0, reader=reading("each"), cache=False
    )
    with pytest.raises(ValueError, match="channels='each'"):
        heat_maps(tuned.fit(STACKS, LABELS), STACKS)


def test_layer_sweep(extractor):
    extractor.set_params(reader=reading("each"))
    table = layer_sweep(
        extractor, LogisticRegression(), STACKS, LABELS, poolings=["avg"], cv=2, nested=False
    )
    assert {(row.layer, row.n_features) for row in table} == {("stem", 30), ("mean", 20)}
