"""Folded batch normalization and exempted convolutions: the same steps, under the same names."""

import copy

import pytest
import torch
from torch import fx, nn

from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones.cutting._segment import Segment
from sklearn_featx.training import TailAndHead, seeded
from sklearn_featx.training._frozen_norms import fold_norms, keep_strided_groups_in_float32


class Odd(nn.Module):
    """Pairs that may be folded, and look-alikes that may not."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.plain, self.plain_norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.bare, self.bare_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)
        self.read_twice, self.read_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.twice, self.twice_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.mirrored_norm = nn.BatchNorm2d(8)
        self.lone_norm = nn.BatchNorm2d(8)
        self.untracked, self.untracked_norm = (
            nn.Conv2d(8, 8, 1),
            nn.BatchNorm2d(8, track_running_stats=False),
        )

    def forward(self, x):
        x = self.first_norm(self.first(x)).relu()
        x = self.plain_norm(self.plain(x)).relu()
        x = self.bare_norm(self.bare(x)).relu()
        read = self.read_twice(x)
        x = (self.read_norm(read) + read).relu()
        x = self.twice_norm(self.twice(x)).relu()
        x = self.twice_norm(self.twice(x)).relu()
        x = self.mirrored_norm(self.mirrored(x)).relu()
        return self.untracked_norm(self.untracked(self.lone_norm(x)))


FOLDED = ["first_norm", "plain_norm", "bare_norm"]


@pytest.fixture
def odd():
    with seeded(3):
        module = Odd()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                if part.affine:
                    nn.init.normal_(part.weight)
                    nn.init.normal_(part.bias)
    graph = fx.Tracer().trace(module.eval())
    return Segment(module, graph, graph)


def gradients(module, x):
    module.zero_grad()
    outputs = module(x)
    (outputs**2).sum().backward()
    return outputs, {name: p.grad for name, p in module.named_parameters()}


def test_outputs_and_all_gradients_are_the_same(odd):
    x = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    plain = copy.deepcopy(odd).double()
    folded = copy.deepcopy(plain)
    fold_norms([folded])
    (outputs, found), (expected, wanted) = gradients(folded, x), gradients(plain, x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(found, wanted)


def test_only_pairs_of_their_own_are_folded(odd):
    fold_norms([odd])
    folded = [name for name, part in odd.named_modules() if "forward" in vars(part)]
    assert [name for name in folded if name.endswith("norm")] == FOLDED


def test_names_and_state_are_as_they_were(odd):
    before = {name: t.clone() for name, t in odd.state_dict().items()}
    fold_norms([odd])
    after = odd.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], t) for name, t in before.items())


def test_a_copy_reads_its_own_parameters(odd):
    fold_norms([odd])
    twin = copy.deepcopy(odd)
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(twin(x), odd(x))
    with torch.no_grad():
        twin.first_norm.weight.zero_()
        twin.first.weight.zero_()
    assert not torch.equal(twin(x), odd(x))


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_tail_folds_where_statistics_stand_still(batch_norm):
    backbone = get_backbone("mobilenet_v3_small", None, warn=False)
    stages = backbone.tail(len(backbone.stages) - 2)
    module = TailAndHead(stages, nn.Flatten(), trained=[False, True], batch_norm=batch_norm)
    folded = [any("forward" in vars(part) for part in stage.modules()) for stage in module.stages]
    has_norms = [
        any(isinstance(part, nn.BatchNorm2d) for part in stage.modules()) for stage in stages
    ]
    assert folded == [has_norms[0], has_norms[1] and batch_norm == "frozen"]
    assert any(folded)


def test_strided_groups_compute_in_float32_under_autocast():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, groups=4),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, stride=2),
    )
    keep_strided_groups_in_float32([layers])
    x, types = torch.randn(1, 4, 33, 33), []
    with torch.autocast("cpu", torch.bfloat16):
        for layer in layers:
            x = layer(x)
            types.append(x.dtype)
    assert types == [torch.float32, torch.bfloat16, torch.bfloat16]
