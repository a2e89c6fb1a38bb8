"""Number of channels of a network's input, whatever its forward does before the convolution."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones.cutting._input_channels import input_channels


class Before(nn.Module):
    """A convolution, and what happens to an image before it."""

    def __init__(self, n_channels, before):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Conv2d(n_channels, 4, 3)
        self.before = before

    def forward(self, x):
        return self.stem(self.before(x)).relu().mean((2, 3))


WAYS = {
    "as it is": (3, lambda x: x, 3),
    "gray as it is": (1, lambda x: x, 1),
    "mean of the colors": (1, lambda x: x.mean(1, keepdim=True), 3),
    "one of the colors": (1, lambda x: x[:, 1:2], 3),
    "weighted colors": (1, lambda x: (x * torch.ones(3, 1, 1)).sum(1, keepdim=True), 3),
    "gray three times": (3, lambda x: x.repeat(1, 3, 1, 1), 1),
    "gray as three": (3, lambda x: x.expand(-1, 3, -1, -1), 3),
    "colors and their mean": (4, lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1), 3),
    "five channels": (5, lambda x: x, 5),
    "fails": (1, lambda x: x.no_such_method(), 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_the_convolution_then_gets(way):
    n_channels, before, expected = WAYS[way]
    assert input_channels(Before(n_channels, before)) == expected


@pytest.mark.parametrize("way", [way for way, (*_, expected) in WAYS.items() if expected == 3])
def test_features_are_those_of_the_network_alone(way):
    n_channels, before, _ = WAYS[way]
    net = Before(n_channels, before).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    with torch.no_grad():
        expected = net(torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2))
    features = PretrainedFeatureExtractor(net, cache=False).fit_transform(images)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
