"""Sections of a network: the same numbers, and no more rows at a time than have room."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import fx, nn

from sklearn_featx.engines import _sections
from sklearn_featx.engines._sections import Sectioned, cut_in_sections


def batch(n, *shape):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))


class Narrowing(nn.Module):
    """Maps of 16, 8 and 4 positions a side, and a vector; notes the rows that each part gets."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
            self.third = nn.Conv2d(8, 8, 3, stride=2, padding=1)
            self.last = nn.Linear(8, 5)
        self.rows = {}
        for name, layer in self.named_children():
            layer.register_forward_hook(
                lambda _, inputs, __, name=name: self.rows.setdefault(name, []).append(
                    len(inputs[0])
                )
            )

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(torch.relu(self.third(x)).mean((2, 3)))


def sectioned(network, monkeypatch, n_bytes):
    monkeypatch.setattr(_sections, "_BYTES_IN_CACHE", n_bytes)
    return Sectioned(fx.symbolic_trace(network.eval()))


def check(network, x, monkeypatch, n_bytes=10_000):
    found = sectioned(network, monkeypatch, n_bytes)
    with torch.inference_mode():
        torch.testing.assert_close(found(x), network(x), atol=1e-6, rtol=1e-5)
    return found


def n_rows(network, x):
    """How many rows each section takes."""
    return [section.n_rows for section in cut_in_sections(network._network, x[:1])]


class TestRows:
    # A row's bytes that the operations read and write, in order: 11,264 (and 896 of weights),
    # 16,384, 10,240 (and 2,336), 4,096, 2,560 (and 2,336), 1,024, 544, 52 (and 180).
    @pytest.mark.parametrize(
        ("n_bytes", "wanted"),
        [(1, [1, 2]), (20_000, [1, 2, 4, 8, 16, 32, 256]), (10**9, [256])],
    )
    def test_as_many_as_have_room(self, monkeypatch, n_bytes, wanted):
        network = sectioned(Narrowing(), monkeypatch, n_bytes)
        assert n_rows(network, batch(1, 3, 16, 16)) == wanted

    def test_each_part_gets_them(self, monkeypatch):
        network = Narrowing()
        found = check(network, batch(11, 3, 16, 16), monkeypatch, n_bytes=20_000)
        network.rows.clear()
        found(batch(11, 3, 16, 16))
        wanted = {"first": [1] * 11, "second": [2] * 5 + [1], "third": [8, 3], "last": [11]}
        assert network.rows == wanted

    def test_another_size_has_others(self, monkeypatch):
        network = Narrowing()
        found = sectioned(network, monkeypatch, 20_000)
        large, small = batch(8, 3, 32, 32), batch(8, 3, 8, 8)
        with torch.inference_mode():
            found(large), found(small)
            network.rows.clear()
            found(large), found(small)
        assert network.rows["first"] == [1] * 8 + [4] * 2

    def test_maps_that_grow_again(self, monkeypatch):
        class Waist(nn.Module):
            def forward(self, x):
                x = nn.functional.avg_pool2d(x, 4) * 2.0
                return nn.functional.interpolate(x, scale_factor=8)

        found = check(Waist(), batch(3, 2, 8, 8), monkeypatch, n_bytes=8_192)
        # 544 bytes of a row in the first half, 2,080 in the second.
        assert n_rows(found, batch(3, 2, 8, 8)) == [2]

    def test_heavy_weights_are_read_for_more_rows(self, monkeypatch):
        class Heavy(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(64, 64, bias=False)

            def forward(self, x):
                return self.layer(x)

        # 16,384 bytes of weights and 512 of a row.
        found = check(Heavy(), batch(3, 64), monkeypatch, n_bytes=1)
        assert n_rows(found, batch(3, 64)) == [32]


class Tapped(nn.Module):
    """Several results, one of them from the middle; the input's is one as well."""

    def forward(self, x):
        y = torch.relu(x)
        kept = y.clone()
        return x, kept, {"sum": y.mul_(2.0).sum((2, 3))}


class Residual(nn.Module):
    def forward(self, x):
        y = x * 2.0
        z = torch.sin(y) + y
        return torch.cos(z) * z


class WithConstant(nn.Module):
    """What does not depend on rows is needed at both ends."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.arange(1.0, 9.0))

    def forward(self, x):
        scale = self.scale.sqrt()
        return torch.relu(x * scale) * scale


class UnusedEnd(nn.Module):
    """What is computed last is neither a tensor nor returned."""

    def forward(self, x):
        y = torch.relu(x)
        z = torch.sin(y)
        y.shape[0] + 1
        return z


@pytest.mark.parametrize("network", [Tapped(), Residual(), WithConstant(), UnusedEnd()])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_the_same_results(network, n, monkeypatch):
    found = check(network, batch(n, 2, 8, 8), monkeypatch, n_bytes=2_048)
    if n:
        assert n_rows(found, batch(n, 2, 8, 8))[0] < 5


class RowsSecond(nn.Module):
    """Tokens first, as some transformers want it, in the middle."""

    def __init__(self, back):
        super().__init__()
        self.back = back

    def forward(self, x):
        tokens = torch.relu(x.flatten(2).permute(2, 0, 1))
        tokens = tokens * tokens
        return tokens.mean(0) if self.back else tokens


def test_no_cut_where_rows_are_not_the_first_axis(monkeypatch):
    # The mean has room for two rows, what comes before it for one; tokens lie between them.
    found = check(RowsSecond(back=True), batch(5, 2, 8, 8), monkeypatch, n_bytes=1_100)
    assert n_rows(found, batch(5, 2, 8, 8)) == [1]


def test_results_without_rows_first_leave_the_network_whole(monkeypatch):
    found = check(RowsSecond(back=False), batch(5, 2, 8, 8), monkeypatch, n_bytes=1)
    assert n_rows(found, batch(5, 2, 8, 8)) == []


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vit_b_16"])
def test_networks_compute_the_same(name, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = {"image_size": 32} if name == "vit_b_16" else {}
        network = torchvision.models.get_model(name, weights=None, **size)
    found = check(network, batch(5, 3, 32, 32), monkeypatch, n_bytes=100_000)
    assert len(n_rows(found, batch(5, 3, 32, 32))) > 1


def test_workers_that_start_together_cut_once(monkeypatch):
    cuts, original = [], _sections.cut_in_sections

    def counted(*arguments):
        cuts.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(_sections, "cut_in_sections", counted)
    network = sectioned(Residual(), monkeypatch, 2_048)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: network(batch(3, 2, 8, 8)), range(8)))
    assert len(cuts) == 1
    assert all(torch.equal(result, results[0]) for result in results)
