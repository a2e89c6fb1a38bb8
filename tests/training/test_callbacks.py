"""Gradual unfreezing: which stages are trained in which epoch."""

import numpy as np
import pytest
from skorch.callbacks import Callback

from sklearn_featx import FineTuneClassifier, GradualUnfreezing
from sklearn_featx.training._callbacks import first_epoch


@pytest.mark.parametrize(
    ("n_stages", "n_epochs", "expected"),
    [(3, 10, [1, 2, 3]), (3, 4, [1, 2, 3]), (3, 2, [0, 1, 1]), (3, 1, [0, 0, 0]), (0, 5, [])],
)
def test_a_stage_joins_in_the_epoch_of_its_rank_or_sooner(n_stages, n_epochs, expected):
    ranks = range(1, n_stages + 1)
    assert [first_epoch(rank, n_stages, n_epochs) for rank in ranks] == expected


class Rates(Callback):
    """Notes the rates of head and stage in every step."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, net, training, **kwargs):
        self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


def test_the_schedule_keeps_the_ratio_of_the_rates(small_net, digits):
    # github.com/open-mmlab/mmdetection3d/issues/3059: there the schedule ends at one rate for all
    notes = Rates()
    clf = FineTuneClassifier(
        small_net, lr=0.01, backbone_lr_ratio=0.1, max_epochs=3, C=1.0, callbacks=[notes]
    )
    clf.fit(*digits)
    rates = np.array(notes.seen)
    ratios = rates.min(axis=1) / rates.max(axis=1)
    assert len(rates) == 6
    assert len(np.unique(rates[:, 0])) == 6
    np.testing.assert_allclose(ratios, 0.1)


class Trained(Callback):
    """Notes after each epoch which parts changed in it."""

    def __init__(self):
        self.changed = []

    def on_epoch_begin(self, net, **kwargs):
        self.before = {n: p.detach().clone() for n, p in net.module_.named_parameters()}

    def on_epoch_end(self, net, **kwargs):
        self.changed.append(
            {
                ".".join(name.split(".")[:2]) if name.startswith("stages") else "head"
                for name, parameter in net.module_.named_parameters()
                if not (parameter == self.before[name]).all()
            }
        )


def test_one_more_stage_is_trained_in_each_epoch(small_net, digits):
    notes = Trained()
    clf = FineTuneClassifier(
        small_net, unfreeze_depth=2, max_epochs=4, C=1.0, lr=1e-2,
        random_state=0, image_size=16, callbacks=[notes, GradualUnfreezing()],
    ).fit(*digits)  # fmt: skip
    assert clf.net_.module_.trained == (True, True)
    changed = notes.changed
    assert changed[0] == {"head"}
    assert changed[1] == {"head", "stages.1"}
    assert changed[2] == changed[3] == {"head", "stages.0", "stages.1"}


def test_continued_training_reaches_stages_that_an_early_stop_left_out(small_net, digits):
    clf = FineTuneClassifier(
        small_net, unfreeze_depth=2, max_epochs=20, C=1.0, lr=1e-12, early_stopping=True,
        n_iter_no_change=1, random_state=0, image_size=16, callbacks=[GradualUnfreezing()],
    ).fit(*digits)  # fmt: skip
    # The deeper stage would have joined in the third epoch.
    assert len(clf.history_) == 2
    assert all(parameter.requires_grad for parameter in clf.net_.module_.parameters())


def test_what_joined_late_is_kept(small_net, digits):
    settings = {"unfreeze_depth": 2, "max_epochs": 3, "C": 1.0, "random_state": 0, "image_size": 16}
    at_once = FineTuneClassifier(small_net, **settings).fit(*digits)
    callbacks = [GradualUnfreezing()]
    gradual = FineTuneClassifier(small_net, callbacks=callbacks, **settings).fit(*digits)
    assert gradual.trained_state_.keys() == at_once.trained_state_.keys()
    # A stage that was held back at first differs in the end from one that never was.
    deepest = [name for name in at_once.trained_state_ if name.startswith("stages.0")]
    assert deepest
    before = small_net.state_dict()
    for name in deepest:
        assert not np.array_equal(gradual.trained_state_[name], at_once.trained_state_[name])
        pretrained = before[name.removeprefix("stages.0.")].numpy()
        assert not np.array_equal(gradual.trained_state_[name], pretrained)
