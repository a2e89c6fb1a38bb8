"""Weights with gaps, and parameters that forbid a cut: refused with the name of the tensor."""

import pytest
import torch
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.exceptions import UnknownLayerError, WeightsError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 4), nn.Linear(4, 2),
    )  # fmt: skip


def test_features_behind_a_gap_are_refused(network, digits):
    """Some files of torchvision hold the convolutions of VGG16 alone, and NaN for the rest."""
    nn.init.constant_(network[4].weight, float("nan"))
    with pytest.raises(WeightsError, match=r"NaN for '4\.weight'.*layer up to '3'"):
        PretrainedFeatureExtractor(network).fit(digits[0])


def test_layers_before_a_gap_work(network, digits):
    nn.init.constant_(network[4].weight, float("nan"))
    features = PretrainedFeatureExtractor(network, layer="1").fit_transform(digits[0])
    assert features.shape == (len(digits[0]), 4)
    assert torch.from_numpy(features).isfinite().all()


def test_a_tail_with_a_gap_is_refused(network):
    nn.init.constant_(network[4].weight, float("nan"))
    backbone = get_backbone(network)
    with pytest.raises(WeightsError, match=r"NaN for '4\.weight'"):
        backbone.tail(0)


def test_without_a_whole_stage_no_layer_is_named(network):
    nn.init.constant_(network[0].bias, float("nan"))
    with pytest.raises(WeightsError, match=r"NaN for '0\.bias'.*layer before it"):
        get_backbone(network).tapped([1])


def test_infinite_masks_are_no_gaps():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.mask = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)

        def forward(self, x):
            """Attend to the first of two values."""
            return self.a(x) * self.mask.softmax(0)[0]

    (found,) = get_backbone(Masked()).tapped([1])(torch.ones(1, 4))
    assert found.isfinite().all()


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.middle = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        """Use the first convolution twice."""
        x = self.first(self.middle(self.first(x)))
        return self.head(x.mean((2, 3)))


def test_a_named_end_between_two_uses_of_a_parameter_is_refused():
    with pytest.raises(UnknownLayerError, match=r"after 'middle'.*'first\.\w+' is used on both"):
        get_backbone(Shared(), None, ["middle"])
