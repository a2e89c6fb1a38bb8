"""Settings in, a net out: callbacks, early stopping, net_params, verbosity."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn

from sklearn_featx.training import RowsDataset, continue_fit, trained_state


def fit(net, dataset):
    return net.fit(dataset, dataset.targets)


class Recorder(Callback):
    """Remembers the trained weights and the rates of each epoch."""

    def __init__(self):
        self.states, self.rates = [], []

    def on_epoch_end(self, net, **kwargs):
        self.states.append(trained_state(net))

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])


@pytest.mark.parametrize(
    "callbacks",
    [[EarlyStopping()], [("stop", EarlyStopping(patience=2))], [("stop", EarlyStopping)]],
    ids=["plain", "named", "class"],
)
@pytest.mark.parametrize("given", ["callbacks", "net_params"])
def test_skorchs_early_stopping_needs_held_out_rows(callbacks, given, quick_net, conv_tail):
    settings = (
        {"callbacks": callbacks}
        if given == "callbacks"
        else {"net_params": {"callbacks": callbacks}}
    )
    with pytest.raises(ValueError, match=r"EarlyStopping watches valid_loss.*early_stopping=True"):
        quick_net(conv_tail, **settings)
    quick_net(conv_tail, early_stopping=True, **settings)
    watching = {"callbacks": [EarlyStopping(monitor="train_loss")]}
    quick_net(conv_tail, **watching)


def test_early_stopping_restores_the_best_epoch(quick_net, conv_tail, image_rows):
    recorder = Recorder()
    settings = {"lr": 0.5, "backbone_lr_ratio": 1.0, "max_epochs": 40, "n_iter_no_change": 2}
    settings |= {"early_stopping": True, "validation_fraction": 0.3, "optimizer": "adam"}
    net = fit(quick_net(conv_tail, callbacks=[recorder], **settings), image_rows)
    losses = net.history[:, "valid_loss"]
    best = int(np.argmin(losses))
    assert len(losses) < 40, "did not stop early"
    assert best < len(losses) - 1
    assert len(recorder.states) == len(losses), "the last epoch missed the user's callback"
    for name, value in trained_state(net).items():
        np.testing.assert_array_equal(value, recorder.states[best][name])


def test_validation_rows_are_stratified_and_not_trained_on(quick_net, conv_tail, image_rows):
    split = {}

    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train, dataset_valid, **kwargs):
            split["train"], split["valid"] = dataset_train.indices, dataset_valid.indices

    settings = {"early_stopping": True, "validation_fraction": 0.25, "callbacks": [Spy]}
    quick_net(conv_tail, **settings).fit(image_rows)
    assert not set(split["train"]) & set(split["valid"])
    assert sorted([*split["train"], *split["valid"]]) == list(range(41))
    assert np.bincount(image_rows.targets[split["valid"]]).min() >= 3


def test_a_split_that_is_impossible_says_so(quick_net, conv_tail):
    dataset = RowsDataset(np.ones((5, 3, 8, 8), np.float32), [0, 0, 1, 1, 2])
    with pytest.raises(ValueError, match=r"early_stopping=True .*_fraction=0.1 of the 5 rows"):
        fit(quick_net(conv_tail, early_stopping=True), dataset)


def test_going_on_has_no_early_stopping(quick_net, conv_tail, image_rows):
    net = fit(quick_net(conv_tail, early_stopping=True, n_iter_no_change=1), image_rows)
    n_epochs = len(net.history)
    one_class = RowsDataset(image_rows.rows[:4], [0, 0, 0, 0])
    continue_fit(net, one_class, epochs=3)
    assert len(net.history) == n_epochs + 3
    assert "valid_loss" not in net.history[-1]


def test_no_epochs_no_harm(quick_net, conv_tail, image_rows):
    net = quick_net(conv_tail, max_epochs=0, early_stopping=True)
    before = trained_state(net.initialize())
    after = trained_state(fit(net, image_rows))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_callbacks_pass_through_plain_and_named(quick_net, conv_tail, image_rows):
    scores = [
        EpochScoring("accuracy", lower_is_better=False, on_train=True, name="accuracy"),
        ("loss", EpochScoring("neg_log_loss", lower_is_better=False, on_train=True, name="nll")),
    ]
    net = fit(quick_net(conv_tail, callbacks=scores, max_epochs=6), image_rows)
    assert net.history[-1, "accuracy"] > 0.6
    assert net.history[-1, "nll"] == pytest.approx(-net.history[-1, "train_loss"], rel=1e-4)
    assert "loss" in dict(net.callbacks_)


def test_scoring_of_regression_and_labels(quick_net, conv_tail, image_rows):
    labels = np.stack([image_rows.targets > 0, image_rows.targets > 1, image_rows.targets < 9], 1)
    for task, scoring, targets in [
        ("regression", "r2", labels * 1.0),
        ("multilabel", "f1_samples", labels * 1),
    ]:
        score = EpochScoring(scoring, lower_is_better=False, on_train=True, name="score")
        dataset = RowsDataset(image_rows.rows, targets)
        net = fit(quick_net(conv_tail, task=task, callbacks=[score], max_epochs=8), dataset)
        assert net.history[-1, "score"] > 0.3


def test_the_schedule_sets_the_rate_of_each_step(quick_net, conv_tail, image_rows):
    recorder = Recorder()
    params = {"callbacks__schedule__warmup_fraction": 0.25}
    settings = {"lr": 0.01, "max_epochs": 4, "batch_size": 21, "net_params": params}
    fit(quick_net(conv_tail, callbacks=[recorder], **settings), image_rows)
    assert len(recorder.rates) == 8
    np.testing.assert_allclose(recorder.rates[:3], [0.01 / 3, 0.02 / 3, 0.01])
    assert all(np.diff(recorder.rates[2:]) < 0)


def test_continued_training_has_the_base_rate(quick_net, conv_tail, image_rows):
    recorder = Recorder()
    net = fit(quick_net(conv_tail, callbacks=[recorder], batch_size=-1, lr=0.01), image_rows)
    assert recorder.rates[-1] < 0.01
    continue_fit(net, image_rows, 2)
    assert recorder.rates[-2:] == [0.01, 0.01]


@pytest.mark.parametrize("name", [None, "rates", "schedule"])
def test_a_scheduler_of_the_users_own(quick_net, conv_tail, image_rows, name):
    recorder = Recorder()
    scheduler = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    callbacks = [recorder, scheduler if name is None else (name, scheduler)]
    fit(quick_net(conv_tail, callbacks=callbacks, batch_size=-1, lr=0.01), image_rows)
    np.testing.assert_allclose(recorder.rates, [1e-2, 1e-3, 1e-4, 1e-5])


def test_no_schedule_keeps_the_rates(quick_net, conv_tail, image_rows):
    recorder = Recorder()
    callbacks = [recorder, ("schedule", None)]
    fit(quick_net(conv_tail, callbacks=callbacks, batch_size=-1, lr=0.01), image_rows)
    assert recorder.rates == [0.01] * 4


def test_net_params_have_the_last_word(quick_net, conv_tail, image_rows):
    params = {
        "max_epochs": 1,
        "optimizer": torch.optim.RMSprop,
        "optimizer__alpha": 0.7,
        "iterator_train__drop_last": True,
        "iterator_train__batch_size": 10,
        "criterion": nn.MultiMarginLoss,
        "criterion__margin": 0.5,
    }
    net = fit(quick_net(conv_tail, optimizer="sgd", net_params=params), image_rows)
    assert len(net.history) == 1
    assert net.history[-1, "train_batch_count"] == 4
    assert net.optimizer_.param_groups[0]["alpha"] == 0.7
    assert net.criterion_.margin == 0.5


def test_net_params_reach_callbacks_and_own_parameter_groups(quick_net, conv_tail):
    params = {
        "callbacks__schedule": None,
        "optimizer__param_groups": [("head*", {"lr": 0.5})],
    }
    net = quick_net(conv_tail, net_params=params).initialize()
    assert "schedule" not in dict(net.callbacks_)
    rates = [group["lr"] for group in net.optimizer_.param_groups]
    assert rates == [0.5, 0.03]
    held = [p for group in net.optimizer_.param_groups for p in group["params"]]
    assert all(parameter.requires_grad for parameter in held)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("max_epoch", "max_epochs"),
        ("iterator_trian__shuffle", "iterator_train__shuffle"),
        ("iterator_train_num_workers", "iterator_train__num_workers"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(quick_net, conv_tail, key, hint):
    with pytest.raises(ValueError, match=f"net_params: unknown key '{key}'.*'{hint}'"):
        quick_net(conv_tail, net_params={key: 1})


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"lr": "high"}, "lr must be a float"),
        ({"max_epochs": 0}, "max_epochs must be an int"),
        ({"batch_size": -2}, "batch_size must be an int"),
        ({"micro_batch_size": 0}, "micro_batch_size must be an int"),
        ({"criterion": "mse"}, "criterion must be a callable"),
        ({"criterion__nothing": 1}, "net_params={'criterion__nothing': 1}.*'nothing'"),
        ({"criterion__reduction": "mean"}, "criterion__reduction must be"),
        ({"criterion__label_smoothing": "a"}, "net_params: the criterion.*label_smoothing"),
        ({"optimizer__nothing": 1}, "net_params={'optimizer__nothing': 1}.*'nothing'"),
        ({"iterator_valid__nothing": 1}, "net_params={'iterator_valid__nothing': 1}.*'nothing'"),
        ({"callbacks": [5]}, "callbacks: 5 is no skorch callback"),
        ({"callbacks__nothing__x": 1}, "'callbacks__nothing__x' names no callback"),
        ({"callbacks__schedule": 5}, "net_params={'callbacks__schedule': 5}"),
        ({"device": "nowhere"}, "net_params={'device': 'nowhere'}"),
        ({"module": 5}, "'module' is set by the estimator"),
    ],
)
def test_a_wrong_value_is_named(quick_net, conv_tail, image_rows, params, named):
    with pytest.raises(ValueError, match=named) as caught:
        fit(quick_net(conv_tail, net_params=params), image_rows)
    assert "\n" not in str(caught.value)


def test_other_errors_do_not_name_net_params(quick_net):
    def factory():
        raise ValueError("no module")

    with pytest.raises(ValueError, match=r"^no module$"):
        quick_net(factory, net_params={"max_epochs": 1}).initialize()


def test_an_unknown_optimizer(quick_net, conv_tail):
    with pytest.raises(ValueError, match="optimizer must be one of"):
        quick_net(conv_tail, optimizer="lion")


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_verbosity(quick_net, conv_tail, image_rows, capsys, verbose):
    fit(quick_net(conv_tail, verbose=verbose, early_stopping=True), image_rows)
    out, err = capsys.readouterr()
    assert ("train_loss" in out) == (verbose == 2)
    assert ("training" in err) == (verbose == 1)
