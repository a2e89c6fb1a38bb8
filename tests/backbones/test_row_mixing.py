"""Networks and heads that mix the rows of a batch are refused in fit; no other one is."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._stage import mixes_images
from sklearn_featx.exceptions import BackboneError

X = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")


class Net(nn.Module):
    def __init__(self, operation, *, traceable=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
        self.operation = operation
        self.traceable = traceable
        self.calls = 0

    def forward(self, x):
        if not self.traceable:
            self.calls += int(x.sum() > -1)
        return self.operation(F.relu(self.conv(x))).mean((2, 3))


MIXING = {
    "mean of the batch": lambda x: x - x.mean(0),
    "mean of all values": lambda x: x - x.mean(),
    "maximum of all values": lambda x: x / x.max(),
    "whitening": lambda x: (x - x.mean(0)) / (x.std(0) + 1),
    "softmax over images": lambda x: x.softmax(0),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "norm of the batch": lambda x: x / x.norm(),
    "shifted rows": lambda x: x.roll(1, 0),
    "a small share": lambda x: x + 0.01 * x.mean(0),
}
ALONE = {
    "mean of an image": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "softmax over channels": lambda x: x.softmax(1),
    "hard attention": lambda x: x * F.one_hot(x.argmax(3), 6),
    "dropout that is always on": lambda x: F.dropout(x, 0.5),
    "NumPy's random numbers": lambda x: x * float(np.random.rand()),  # noqa: NPY002
    "NaN": lambda x: x.log(),
    "a constant": lambda x: x * 0,
    "squares": lambda x: x @ x.transpose(2, 3),
}


@pytest.mark.parametrize("traceable", [True, False], ids=["traced", "untraceable"])
@pytest.mark.parametrize("name", MIXING)
def test_a_network_that_mixes_images_is_refused(name, traceable):
    extractor = PretrainedFeatureExtractor(
        Net(MIXING[name], traceable=traceable), pooling="flatten", cache=False
    )
    with pytest.raises(BackboneError, match=r"depend on the other images") as error:
        extractor.fit(X)
    assert "\n" not in str(error.value)


class Branching(nn.Module):
    """Brightens batches by a condition on their values."""

    def __init__(self, is_dark):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.is_dark = is_dark

    def forward(self, x):
        if self.is_dark(x):
            x = x * 2
        return self.conv(x)


@pytest.mark.parametrize(
    "is_dark",
    [lambda x: x.mean() < 0.2, lambda x: x.mean() < 0.8, lambda x: x.max() < 0.95],
    ids=["low", "high", "maximum"],
)
def test_a_condition_on_a_batch_is_refused(is_dark):
    with pytest.raises(BackboneError, match=r"depend on the other images"):
        PretrainedFeatureExtractor(Branching(is_dark), cache=False).fit(X)


def test_a_condition_on_what_all_images_share_is_not_refused():
    values_or_levels = Branching(lambda x: x.max() > 1.5)
    PretrainedFeatureExtractor(values_or_levels, cache=False).fit(X)


@pytest.mark.filterwarnings("ignore:.* draws random numbers in inference mode")
@pytest.mark.parametrize("traceable", [True, False], ids=["traced", "untraceable"])
@pytest.mark.parametrize("name", ALONE)
def test_no_other_network_is_refused(name, traceable):
    if traceable and name == "NumPy's random numbers":
        pytest.skip("refused, since its trace has a number")
    part = get_backbone(Net(ALONE[name], traceable=traceable)).tapped([1])
    state = torch.get_rng_state()
    assert not mixes_images(part, (3, 8, 8), branches=not traceable)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_fine_tuner_refuses_it_too():
    classifier = FineTuneClassifier(Net(MIXING["mean of the batch"]), cache=False)
    with pytest.raises(BackboneError, match=r"depend on the other images"):
        classifier.fit(X, [0, 1, 0, 1])


def test_two_passes_of_two_images_that_leave_no_state():
    rows = []
    network = Net(ALONE["softmax over channels"], traceable=False)
    backbone = get_backbone(network)
    handle = backbone.network.module.register_forward_pre_hook(
        lambda _, given: rows.append((type(given[0]), len(given[0])))
    )
    calls = backbone.network.module.calls
    assert not mixes_images(backbone.tapped([1]), (3, 8, 8))
    assert backbone.network.module.calls == calls
    handle.remove()
    assert [n for kind, n in rows if kind is torch.Tensor] == [2, 2]


class Head(nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs)

    def forward(self, x):
        return self.linear(x - x.mean(0))


def test_a_head_that_mixes_rows_is_refused():
    classifier = FineTuneClassifier(Net(ALONE["a constant"]), head=Head, cache=False)
    with pytest.raises(ValueError, match=r"^head: .* depend on the other rows"):
        classifier.fit(X, [0, 1, 0, 1])


@pytest.mark.parametrize("cache", [True, False])
def test_behind_a_function_as_preprocessing_too(cache):
    """The size of the images is known only from the first result of the function."""
    network = Net(MIXING["mean of the batch"])

    def prepare(image):
        return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)

    extractor = PretrainedFeatureExtractor(network, preprocessing=prepare, cache=cache)
    with pytest.raises(BackboneError, match="other images of the batch"):
        extractor.fit_transform(X)
    tuner = FineTuneClassifier(network, preprocessing=prepare, unfreeze_depth=0, cache=cache)
    with pytest.raises(BackboneError, match="other images of the batch"):
        tuner.fit(X, [0, 1, 0, 1])
