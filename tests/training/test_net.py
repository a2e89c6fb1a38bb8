"""Training: what it may touch, what its steps are, and that seeds decide."""

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import GradientNormClipping
from torch import fx, nn

from sklearn_featx.exceptions import DivergenceError
from sklearn_featx.training import (
    RowsDataset,
    TailAndHead,
    continue_fit,
    make_head,
    predict_rows,
    seeded,
    trained_state,
)


def fit(net, dataset):
    return net.fit(dataset, dataset.targets)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def state_of(module):
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_frozen_means_frozen(quick_net, conv_tail, image_rows, batch_norm, optimizer):
    net = quick_net(lambda: conv_tail(batch_norm=batch_norm), optimizer=optimizer)
    before = state_of(net.initialize().module_)
    fit(net, image_rows)
    after = state_of(net.module_)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    statistics = {f"stages.1.0.1.{n}" for n in ("running_mean", "running_var")}
    counter = {"stages.1.0.1.num_batches_tracked"}
    parameters = {
        *(f"stages.1.0.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")),
        "head.1.weight",
        "head.1.bias",
    }
    assert changed == parameters | (statistics | counter if batch_norm == "train" else set())


def test_optimizer_holds_only_trained_parameters(quick_net, conv_tail):
    net = quick_net(conv_tail).initialize()
    held = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.module_.parameters() if p.requires_grad}
    assert {id(p) for _, p in net.get_all_learnable_params()} == held


def test_training_learns_and_leaves_the_module_in_eval_mode(quick_net, conv_tail, image_rows):
    net = fit(quick_net(conv_tail, max_epochs=8), image_rows)
    predicted = predict_rows(net, image_rows.rows, 16).argmax(1)
    assert (predicted == image_rows.targets).mean() > 0.9
    assert not net.module_.training


def test_same_seed_same_bits_and_no_trace(quick_net, conv_tail, image_rows):
    before = torch.get_rng_state()
    states = [
        trained_state(fit(quick_net(conv_tail, random_state=seed), image_rows))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(states[0], states[1])
    assert not np.array_equal(states[0]["head.1.weight"], states[2]["head.1.weight"])


def test_the_callers_generator_has_no_say(quick_net, conv_tail, image_rows):
    states = []
    for seed in (0, 1):
        with seeded(seed):
            states.append(trained_state(fit(quick_net(conv_tail), image_rows)))
    assert_same(*states)


def test_initialising_twice_is_the_same_and_leaves_no_trace(quick_net):
    def factory():
        return TailAndHead([], nn.Linear(4, 2), trained=[], batch_norm="frozen")

    before = torch.get_rng_state()
    states = [state_of(quick_net(factory).initialize().module_) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(*states)


def test_going_on_repeats_nothing(quick_net, conv_tail, image_rows):
    """Two epochs and two more are four, at constant rates: neither order nor dropout repeats."""
    constant = {"callbacks": [("schedule", None)]}
    whole = fit(quick_net(conv_tail, max_epochs=4, **constant), image_rows)
    parts = fit(quick_net(conv_tail, max_epochs=2, **constant), image_rows)
    assert continue_fit(parts, image_rows, epochs=2) is parts
    assert_same(trained_state(whole), trained_state(parts))
    assert [epoch["epoch"] for epoch in parts.history] == [1, 2, 3, 4]


def test_each_epoch_has_an_order_of_its_own(quick_net, conv_tail, image_rows):
    orders = []

    class Lazy:
        def __len__(self):
            return 41

        def __getitem__(self, positions):
            orders.append(tuple(positions))
            return image_rows.rows[positions]

    net = quick_net(conv_tail, max_epochs=3, batch_size=-1)
    continue_fit(net.fit(RowsDataset(Lazy(), image_rows.targets)), image_rows, epochs=0)
    continue_fit(net, RowsDataset(Lazy(), image_rows.targets), epochs=1)
    assert len(set(orders)) == 4
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(41))}


def test_going_on_runs_at_the_base_rates(quick_net, conv_tail, image_rows):
    net = fit(quick_net(conv_tail, lr=0.02), image_rows)
    assert net.optimizer_.param_groups[0]["lr"] < 0.01
    continue_fit(net, image_rows, epochs=1)
    assert net.optimizer_.param_groups[0]["lr"] == 0.02
    assert net.optimizer_.param_groups[-1]["lr"] == 0.01 * 1.0


def transformer_tail():
    with seeded(3):
        block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        pool = nn.Sequential(nn.Flatten(), nn.Linear(40, 8))
    head = make_head("linear", 8, 3, seed=0)
    return TailAndHead([block, pool], head, trained=[True, True], batch_norm="frozen")


@pytest.mark.parametrize("kind", ["conv", "transformer"])
@pytest.mark.parametrize("size", [16, 7])
def test_chunks_are_the_same_step(quick_net, conv_tail, kind, size):
    rng = np.random.default_rng(0)
    shape = (32, 3, 8, 8) if kind == "conv" else (32, 5, 8)
    weights = rng.uniform(0.1, 2, 32)
    rows = RowsDataset(rng.normal(size=shape).astype(np.float32), np.arange(32) % 3, weights)
    batch = rows.__getitems__(range(32))
    gradients, losses = [], []
    for chunk in (size, None):

        def factory():
            module = transformer_tail() if kind == "transformer" else conv_tail()
            for part in module.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0  # its draws depend on the chunks
            return module

        net = quick_net(factory, net_params={"micro_batch_size": chunk}).initialize()
        step = net.train_step_single(batch)
        assert step["y_pred"].shape == (32, 3)
        losses.append(step["loss"].item())
        gradients.append({n: p.grad for n, p in net.get_all_learnable_params()})
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("batch_norm", "shape", "micro_batch_size", "expected"),
    [
        ("frozen", (40, 3, 80, 80), "auto", [16, 16, 8]),
        ("frozen", (40, 3, 56, 56), "auto", [27, 13]),
        ("frozen", (40, 3, 8, 8), "auto", [40]),
        ("frozen", (40, 3, 8, 8), 25, [25, 15]),
        ("frozen", (40, 3, 8, 8), None, [40]),
        ("train", (40, 3, 8, 8), "auto", [40]),
        ("head", (40, 8), "auto", [40]),
    ],
)
def test_when_batches_run_in_chunks(
    quick_net, conv_tail, batch_norm, shape, micro_batch_size, expected
):
    def factory():
        if batch_norm == "head":
            return TailAndHead([], nn.Linear(8, 3), trained=[], batch_norm="frozen")
        return conv_tail(batch_norm=batch_norm)

    net = quick_net(factory, net_params={"micro_batch_size": micro_batch_size}).initialize()
    sizes = []
    net.module_.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    rows = RowsDataset(np.ones(shape, np.float32), np.zeros(40, int))
    net.train_step_single(rows.__getitems__(range(40)))
    assert sizes == expected


def test_feature_maps_run_channels_last(quick_net, conv_tail, image_rows):
    net = quick_net(conv_tail).initialize()
    orders = []
    net.module_.register_forward_pre_hook(
        lambda module, args: orders.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    predict_rows(net, image_rows.rows, 16)
    assert orders == [True] * 3
    kernel = net.module_.stages[1][0][0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)


class Joining(nn.Module):
    """Joins the axes of its maps by `view`, which needs contiguous maps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        x = self.conv(x)
        return x.view(x.size(0), -1)


@pytest.mark.parametrize("traced", [True, False])
def test_feature_maps_are_contiguous_for_a_network_that_joins_their_axes(
    quick_net, image_rows, traced
):
    def factory():
        part = fx.symbolic_trace(Joining()) if traced else Joining()
        return TailAndHead([part], nn.Linear(72, 3), trained=[True], batch_norm="frozen")

    net = quick_net(factory).initialize()
    net.train_step_single(image_rows.__getitems__(range(8)))
    assert predict_rows(net, image_rows.rows, 16).shape == (41, 3)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_weights_are_repetitions_in_a_full_batch(quick_net, task):
    rng = np.random.default_rng(0)
    rows, repeats = rng.normal(size=(20, 6)).astype(np.float32), rng.integers(0, 4, 20)
    targets = {
        "classification": rng.integers(0, 3, 20),
        "multilabel": rng.integers(0, 2, (20, 3)),
        "regression": rng.normal(size=(20, 3)),
    }[task]

    def factory():
        stage = nn.Sequential(nn.Linear(6, 8), nn.GELU())
        head = make_head("linear", 8, 3, seed=0)
        return TailAndHead([stage], head, trained=[True], batch_norm="frozen")

    weighted = RowsDataset(rows, targets, repeats)
    repeated = RowsDataset(np.repeat(rows, repeats, axis=0), np.repeat(targets, repeats, axis=0))
    outputs = [
        predict_rows(fit(quick_net(factory, task=task, batch_size=-1), dataset), rows, 32)
        for dataset in (weighted, repeated)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-5)


def test_one_regression_target_needs_no_second_axis(quick_net):
    def factory():
        return TailAndHead([], nn.Linear(2, 1), trained=[], batch_norm="frozen")

    rows = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    settings = {"task": "regression", "lr": 0.1, "max_epochs": 30}
    net = fit(quick_net(factory, **settings), RowsDataset(rows, rows.sum(1)))
    np.testing.assert_allclose(predict_rows(net, rows, 64)[:, 0], rows.sum(1), atol=0.2)


@pytest.mark.parametrize("n_rows", [9, 1])  # the last batch of 9 in batches of 8 is a single row
def test_a_batch_of_one_row_uses_the_running_statistics(quick_net, n_rows):
    def factory():
        stage = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        return TailAndHead([stage], nn.Linear(4, 2), trained=[True], batch_norm="train")

    dataset = RowsDataset(np.eye(9, 4, dtype=np.float32)[:n_rows], np.arange(n_rows) % 2)
    net = fit(quick_net(factory, max_epochs=2), dataset)
    assert int(net.module_.stages[0][1].num_batches_tracked) == (2 if n_rows == 9 else 0)


def test_divergence_names_the_rates_and_the_way_out(quick_net, conv_tail, image_rows):
    net = quick_net(conv_tail, optimizer="sgd", lr=1e30, backbone_lr_ratio=0.25, max_epochs=6)
    before = torch.get_rng_state()
    with pytest.raises(DivergenceError, match=r"epoch \d.*lr=1e\+30.*2.5e\+29.*lower lr.*clip"):
        fit(net, image_rows)
    assert torch.equal(torch.get_rng_state(), before)


def test_divergence_in_the_very_last_step_is_seen(quick_net):
    def factory():
        return TailAndHead([], nn.Linear(2, 1), trained=[], batch_norm="frozen")

    dataset = RowsDataset(np.full((4, 2), 1e18, np.float32), [1.0, 2.0, 3.0, 4.0])
    settings = {"task": "regression", "optimizer": "sgd", "lr": 1e30, "max_epochs": 1}
    with pytest.raises(DivergenceError, match=r"'head\.weight' is NaN or infinite"):
        fit(
            quick_net(
                factory, net_params={"callbacks__schedule__warmup_fraction": 0.0}, **settings
            ),
            dataset,
        )


def test_gradients_are_clipped(quick_net, conv_tail, image_rows):
    """One step of plain SGD at rate 1 moves by no more than the clipped norm."""
    settings = {
        "optimizer": torch.optim.SGD,
        "lr": 1.0,
        "backbone_lr_ratio": 1.0,
        "weight_decay": 0.0,
    }
    settings |= {
        "batch_size": -1,
        "max_epochs": 1,
        "net_params": {"callbacks__schedule__warmup_fraction": 0.0},
    }
    moved = []
    for callbacks in ([], [GradientNormClipping(1e-3)]):
        net = quick_net(conv_tail, callbacks=callbacks, **settings)
        before = trained_state(net.initialize())
        after = trained_state(fit(net, image_rows))
        moved.append(np.sqrt(sum(np.sum((after[k] - before[k]) ** 2) for k in before)))
    assert moved[0] > 1e-2
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


def test_label_smoothing_reaches_the_loss(quick_net, conv_tail):
    settings = {"criterion__label_smoothing": 0.2}
    net = quick_net(conv_tail, net_params=settings).initialize()
    logits, codes = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([0])
    expected = nn.functional.cross_entropy(logits, codes, label_smoothing=0.2)
    torch.testing.assert_close(net.get_loss(logits, (codes, torch.ones(1))), expected)


def test_a_net_can_be_copied(quick_net, conv_tail, image_rows):
    net = fit(quick_net(conv_tail), image_rows)
    assert_same(trained_state(copy.deepcopy(net)), trained_state(net))
