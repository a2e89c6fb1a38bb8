"""Fine-tuning: problems that users of other libraries reported, tried on ours."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn

from sklearn_featx import FineTuneClassifier, FineTuneRegressor


class Scaled(nn.Module):
    """A network whose features have any scale."""

    def __init__(self, network, by):
        super().__init__()
        self.network, self.by = network, by

    def forward(self, x):
        return self.network(x) * self.by


def tuner(network, **parameters):
    settings = {"C": 1.0, "max_epochs": 1, "random_state": 0, "cache": False}
    return FineTuneClassifier(network, **settings | parameters)


def test_heads_on_frozen_features_do_not_depend_on_their_scale(small_net, digits):
    # vfeofanov/mantis#14: with a frozen encoder accuracy falls to that of chance.
    images, labels = digits
    plain, scaled = (
        tuner(Scaled(small_net, by).eval(), unfreeze_depth=0).fit(images, labels)
        for by in (1.0, 1e4)
    )
    assert plain.score(images, labels) > 0.9
    np.testing.assert_allclose(plain.predict_proba(images), scaled.predict_proba(images), atol=1e-4)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_frozen_layers_stay_as_they_are_to_the_bit(small_net, digits, depth):
    # asyml/vision-transformer-pytorch#5, skorch-dev/skorch#261: are other layers trained too?
    before = {name: t.clone() for name, t in small_net.state_dict().items()}
    model = tuner(small_net, unfreeze_depth=depth, lr=0.1, backbone_lr_ratio=1.0).fit(*digits)
    trained = set(model.trained_state_)
    network = small_net.state_dict()
    assert all(torch.equal(network[name], before[name]) for name in before)
    names = [name for name, _ in small_net.named_parameters()]
    last = [name for name in names if any(key.endswith(name) for key in trained)]
    assert names[: len(names) - len(last)] + last == names
    assert bool(last) == (depth > 0)
    assert len(last) < len(names)


@pytest.mark.parametrize("head_layers", ["last", "all"])
def test_the_first_steps_do_not_spoil_pretrained_features(small_net, digits, head_layers):
    # seyonechithrananda/bert-loves-chemistry#45: a random head spoils them; here it is a probe.
    parts = {"head_layers": head_layers}
    probe = tuner(small_net, unfreeze_depth=0, **parts).fit(*digits)
    tuned = tuner(small_net, unfreeze_depth=1, lr=1e-9, **parts).fit(*digits)
    np.testing.assert_allclose(
        tuned.predict_proba(digits[0]), probe.predict_proba(digits[0]), atol=1e-3
    )


def test_validation_images_of_ones_own(small_net, digits):
    # skorch-dev/skorch#762, #801: a dataset of images cannot be validated on, the trunk reads X.
    images, labels = digits
    own = Dataset(images[:9].astype(np.float32)[:, None], labels[:9])
    for early in (False, True):
        model = tuner(small_net, early_stopping=early)
        model.set_params(net_params={"train_split": predefined_split(own)})
        with pytest.raises(ValueError, match=r"train_split=ValidSplit\(PredefinedSplit\(test_fold"):
            model.fit(images, labels)
    test_fold = np.where(np.arange(60) < 9, 0, -1)
    seen = tuner(small_net, net_params={"train_split": ValidSplit(PredefinedSplit(test_fold))})
    (epoch,) = seen.fit(images, labels).history_
    assert epoch["batches"][-1]["valid_batch_size"] == 9
    assert sum(batch.get("train_batch_size", 0) for batch in epoch["batches"]) == 51


@pytest.mark.parametrize("name", ["callbacks__steps__policy", "optimizer__momentum"])
@pytest.mark.parametrize("cls", [FineTuneClassifier, FineTuneRegressor])
def test_names_of_skorch_are_refused_with_the_way_out(small_net, digits, name, cls):
    # skorch-dev/skorch#825: AttributeError, 'list' object has no attribute 'set_params'
    model = cls(small_net, callbacks=[], cache=False)
    with pytest.raises(ValueError, match=rf"{name}=0.5: .* Set net_params={{'{name}': 0.5}}"):
        model.set_params(**{name: 0.5})
    with pytest.raises(ValueError, match="in a grid a list of such dicts"):
        GridSearchCV(model, {name: [0.5]}, cv=2, error_score="raise").fit(*digits)
    assert model.set_params(reader__frames="all", lr=0.5).lr == 0.5
