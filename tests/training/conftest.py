"""Small networks and rows, and a net of quick settings."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.training import RowsDataset, TailAndHead, make_head, make_net, seeded


def _conv_stage(n_in, n_out):
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())


def _conv_stages():
    with seeded(5):
        last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        return [_conv_stage(3, 6), nn.Sequential(_conv_stage(6, 8), nn.Dropout(0.1)), last]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def conv_tail():
    """Build a tail of three stages (0 convolution, 1 convolution, 2 pooling) and a head."""

    def build(trained=(False, True, True), n_outputs=3, head="linear", **settings):
        head = make_head(head, 8, n_outputs, seed=1)
        settings = {"batch_norm": "frozen"} | settings
        return TailAndHead(_conv_stages(), head, trained=trained, **settings)

    return build


@pytest.fixture
def image_rows():
    """41 rows of shape (3, 8, 8) in three classes that can be told apart."""
    rng = np.random.default_rng(0)
    codes = np.arange(41) % 3
    rows = rng.normal(size=(41, 3, 8, 8)).astype(np.float32) + (codes - 1)[:, None, None, None]
    return RowsDataset(rows.astype(np.float32), codes)


@pytest.fixture
def quick_net():
    """Build a net with settings that suit a test; keywords replace them."""

    def build(factory, **settings):
        defaults = {
            "task": "classification",
            "lr": 0.03,
            "backbone_lr_ratio": 0.5,
            "weight_decay": 0.01,
            "max_epochs": 4,
            "batch_size": 8,
        }
        return make_net(factory, **(defaults | settings))

    return build
