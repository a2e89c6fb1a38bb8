"""What a net leaves behind: trained arrays, plain history, predictions."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier
from sklearn_featx.exceptions import WeightsError
from sklearn_featx.training import (
    RowsDataset,
    TailAndHead,
    load_trained_state,
    plain_history,
    predict_rows,
    trained_state,
)

# Mean and scale of the embeddings, which are measured on the training rows.
SCALE = {"head.0.mean", "head.0.scale"}
STATISTICS = {
    f"stages.1.0.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
}


def fit(net, dataset):
    return net.fit(dataset, dataset.targets)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_round_trip(quick_net, conv_tail, image_rows, batch_norm):
    net = fit(quick_net(lambda: conv_tail(batch_norm=batch_norm)), image_rows)
    state = pickle.loads(pickle.dumps(trained_state(net)))
    assert {type(value) for value in state.values()} == {np.ndarray}
    fresh = quick_net(lambda: conv_tail(batch_norm=batch_norm)).initialize()
    load_trained_state(fresh.module_, state)
    np.testing.assert_array_equal(
        predict_rows(fresh, image_rows.rows, 16), predict_rows(net, image_rows.rows, 16)
    )


@pytest.mark.parametrize(
    ("batch_norm", "buffers"), [("frozen", SCALE), ("train", STATISTICS | SCALE)]
)
def test_the_state_is_what_training_changes(quick_net, conv_tail, batch_norm, buffers):
    net = quick_net(lambda: conv_tail(batch_norm=batch_norm)).initialize()
    trained = {name for name, p in net.module_.named_parameters() if p.requires_grad}
    assert set(trained_state(net)) == trained | buffers


def test_the_heads_statistics_travel(quick_net):
    def factory():
        head = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
        return TailAndHead([], head, trained=[], batch_norm="frozen")

    assert "head.0.running_mean" in trained_state(quick_net(factory).initialize())


def test_the_state_is_a_copy(quick_net, conv_tail, image_rows):
    net = quick_net(conv_tail).initialize()
    state = trained_state(net)
    before = {name: value.copy() for name, value in state.items()}
    fit(net, image_rows)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_bfloat16_survives(quick_net):
    def factory():
        head = nn.Linear(3, 2).to(torch.bfloat16)
        return TailAndHead([], head, trained=[], batch_norm="frozen")

    first = quick_net(factory, random_state=1).initialize()
    second = quick_net(factory, random_state=2).initialize()
    state = trained_state(first)
    assert state["head.weight"].dtype == np.float32
    load_trained_state(second.module_, state)
    assert second.module_.head.weight.dtype == torch.bfloat16
    assert torch.equal(second.module_.head.weight, first.module_.head.weight)


def test_errors_name_what_differs(quick_net, conv_tail):
    net = quick_net(conv_tail).initialize()
    state = trained_state(net)
    before = {name: value.copy() for name, value in state.items()}
    wrong = {**state, "other": np.zeros(1)}
    del wrong["head.1.bias"]
    with pytest.raises(WeightsError, match=r"trained weights lack 'head\.1\.bias'\. backbone"):
        load_trained_state(net.module_, wrong)
    with pytest.raises(WeightsError, match="trained weights also hold 'other'"):
        load_trained_state(net.module_, {**state, "other": np.zeros(1)})
    wide = {name: value + 1 for name, value in state.items()} | {"head.1.weight": np.zeros((4, 8))}
    with pytest.raises(WeightsError, match=r"'head\.1\.weight' has shape \(4, 8\).*\(3, 8\)"):
        load_trained_state(net.module_, wide)
    for name, value in trained_state(net).items():
        np.testing.assert_array_equal(value, before[name], err_msg="changed by a refused state")


def test_history_is_plain(quick_net, conv_tail, image_rows):
    net = fit(quick_net(conv_tail, early_stopping=True), image_rows)
    history = plain_history(net.history)
    assert type(history) is list
    assert pickle.loads(pickle.dumps(history)) == history == json.loads(json.dumps(history))
    assert type(history[0]["train_loss"]) is float
    assert history[-1]["epoch"] == len(net.history)
    assert b"skorch" not in pickle.dumps(history)


def test_history_of_odd_records():
    record = {"a": np.float32(0.5), "b": torch.ones(2), "c": (1, None), "d": nn.Identity()}
    assert plain_history([record]) == [
        {"a": 0.5, "b": [1.0, 1.0], "c": [1, None], "d": "Identity()"}
    ]


def test_prediction_leaves_buffers_and_generator_alone(quick_net, conv_tail, image_rows):
    net = quick_net(lambda: conv_tail(batch_norm="train")).initialize()
    net.module_.train()
    buffers = {name: b.clone() for name, b in net.module_.named_buffers()}
    before = torch.get_rng_state()
    first, second = (predict_rows(net, image_rows.rows, size) for size in (16, 41))
    assert torch.equal(torch.get_rng_state(), before)
    # Another prediction may run at the same time: it is not put back into train mode.
    assert not any(part.training for part in net.module_.modules())
    for name, buffer in net.module_.named_buffers():
        assert torch.equal(buffer, buffers[name])
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_prediction_of_no_rows_has_the_right_width(quick_net, conv_tail, image_rows):
    net = quick_net(conv_tail).initialize()
    assert predict_rows(net, image_rows.rows[:0], 16).shape == (0, 3)


def test_prediction_reads_lazy_rows_a_batch_at_a_time(quick_net, conv_tail, image_rows):
    asked = []

    class Lazy:
        def __len__(self):
            return 41

        def __getitem__(self, positions):
            asked.append(len(positions))
            return image_rows.rows[positions]

    net = quick_net(conv_tail).initialize()
    expected = predict_rows(net, image_rows.rows, 16)
    np.testing.assert_array_equal(predict_rows(net, Lazy(), 16), expected)
    assert asked == [16, 16, 9]
    fit(net, RowsDataset(Lazy(), image_rows.targets))


def test_arrays_that_a_net_was_made_from_cannot_be_edited(digits):
    X, y = digits
    model = FineTuneClassifier(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        unfreeze_depth=1,
        max_epochs=1,
        random_state=0,
    ).fit(X, y)
    before = model.predict_proba(X)
    saved = pickle.dumps(model)
    loaded = pickle.loads(saved)
    for name, array in loaded.trained_state_.items():
        if name.startswith("head") and name.endswith(("weight", "bias")):
            array[...] = 0
    # No net was made from them yet: the edit counts.
    np.testing.assert_allclose(loaded.predict_proba(X), 1 / 3, rtol=1e-6)
    for answering in (model, loaded):
        for array in answering.trained_state_.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
    np.testing.assert_array_equal(model.predict_proba(X), before)
    np.testing.assert_array_equal(pickle.loads(saved).predict_proba(X), before)
    np.testing.assert_array_equal(copy.deepcopy(model).partial_fit(X, y).classes_, model.classes_)
