"""Networks that draw random numbers in inference mode: their rows are not kept."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import stochastic_depth

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._backbone import Backbone
from sklearn_featx.backbones.sources._custom import build_custom
from sklearn_featx.exceptions import BackboneWarning

X = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


class Net(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.operation = operation

    def forward(self, x):
        return self.operation(self, self.conv(x)).mean((2, 3))


DRAWING = {
    "noise": lambda net, x: x + torch.randn_like(x),
    "dropout that is always on": lambda net, x: F.dropout(x, 0.5),
    "positional": lambda net, x: F.dropout2d(x, 0.5, True),
    "a builtin": lambda net, x: torch.dropout(x, 0.5, True),
    "a method": lambda net, x: x * torch.ones_like(x).bernoulli_(0.5),
    "stochastic depth": lambda net, x: stochastic_depth(x, 0.5, "row"),
    "attention": lambda net, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
}
NOT_DRAWING = {
    "dropout in training": lambda net, x: F.dropout(x, 0.5, training=net.training),
    "positional": lambda net, x: F.dropout2d(x, 0.5, False),
    "a builtin": lambda net, x: torch.dropout(x, 0.5, net.training),
    "no dropout": lambda net, x: F.dropout(x, 0.0),
    "alpha dropout": lambda net, x: F.alpha_dropout(x, 0.5),
    "stochastic depth": lambda net, x: stochastic_depth(x, 0.5, "row", net.training),
    "attention": lambda net, x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("operation", DRAWING.values(), ids=DRAWING)
def test_a_network_that_draws_is_not_remembered(operation):
    with pytest.warns(
        BackboneWarning, match="'net': its .* draws random numbers in inference mode"
    ):
        (why,) = Backbone(build_custom(Net(operation))).unnamed
    assert why.endswith("draws random numbers")


@pytest.mark.parametrize("operation", NOT_DRAWING.values(), ids=NOT_DRAWING)
def test_a_network_that_does_not_draw_is(operation):
    assert get_backbone(Net(operation)).unnamed == ()


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.BackboneWarning")
def test_each_pass_draws_again(capsys):
    extractor = PretrainedFeatureExtractor(Net(DRAWING["noise"]), verbose=1, n_jobs=1)
    assert not np.array_equal(extractor.fit_transform(X), extractor.transform(X))
    assert "rows are not cached, the network's computation has no digest: randn_like draws" in (
        capsys.readouterr().err
    )
