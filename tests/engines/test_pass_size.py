"""Rows in a pass: halved where memory ends, and back again when it is free."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx.engines import _pass_size
from sklearn_featx.engines._pass_size import _FIRST_PATIENCE, PassSize
from sklearn_featx.engines._torch import TorchEngine


def run(size, n_rows, room):
    """Run some rows where so many have room; return the sizes of all tries."""
    tries = []
    while n_rows:
        step = size.limit(n_rows)
        tries.append(step)
        if step > room:
            size.does_not_fit(step)
        else:
            size.fits(step)
            n_rows -= step
    return tries


def test_halves_until_it_fits():
    size = PassSize()
    assert run(size, 64, room=20) == [64, 32, 16, 16, 16, 16]
    assert run(size, 64, room=20) == [16, 16, 16, 16]


def test_a_spike_does_not_last():
    size = PassSize()
    run(size, 64, room=8)
    tries = [step for _ in range(40) for step in run(size, 64, room=1000)]
    assert tries[0] == 8
    assert tries[-1] == 64
    assert size.limit(128) == 128


def test_tries_that_fail_become_rarer():
    size = PassSize()
    tries = [step for _ in range(200) for step in run(size, 16, room=8)]
    failed = [i for i, step in enumerate(tries) if step == 16]
    gaps = np.diff(failed)
    assert gaps[0] == _FIRST_PATIENCE + 1
    assert (np.diff(gaps) > 0).all()


def test_tries_never_end(monkeypatch):
    monkeypatch.setattr(_pass_size, "_MOST_PATIENCE", 2 * _FIRST_PATIENCE)
    size = PassSize()
    tries = [step for _ in range(100) for step in run(size, 16, room=8)]
    gaps = np.diff([i for i, step in enumerate(tries) if step == 16])
    assert gaps.tolist() == [_FIRST_PATIENCE + 1, *[2 * _FIRST_PATIENCE + 1] * 5]


def test_shorter_passes_say_nothing_about_longer_ones():
    size = PassSize()
    run(size, 64, room=8)
    for _ in range(10 * _FIRST_PATIENCE):
        run(size, 4, room=1000)
    assert size.limit(64) == 8


def test_two_workers_that_fail_together_halve_once():
    size = PassSize()
    size.does_not_fit(64)
    size.does_not_fit(64)
    assert size.limit(64) == 32


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), RuntimeError("CUDA error: out of memory")], ids=str
)
def test_an_engine_recovers_from_a_spike(error):
    class Crowded(nn.Module):
        room = 3
        calls = []  # noqa: RUF012

        def forward(self, x):
            self.calls.append(len(x))
            if len(x) > self.room:
                raise error
            return x * 2

    crowded = Crowded()
    engine = TorchEngine(crowded, [nn.Identity()], device=torch.device("cpu"))
    rows = np.arange(32, dtype=np.float32).reshape(16, 2)
    np.testing.assert_array_equal(engine.run(rows)[0], rows * 2)
    Crowded.room = 100
    for _ in range(20):
        np.testing.assert_array_equal(engine.run(rows)[0], rows * 2)
    Crowded.calls.clear()
    engine.run(rows)
    assert Crowded.calls == [16]


def test_what_was_computed_before_memory_ended_is_kept():
    class Once(nn.Module):
        calls = []  # noqa: RUF012

        def forward(self, x):
            self.calls.append(x[:, 0].tolist())
            if len(self.calls) == 4:
                raise RuntimeError("CUDA error: out of memory")
            return x

    engine = TorchEngine(Once(), [nn.Identity()], device=torch.device("cpu"))
    engine._pass_size.does_not_fit(8)
    rows = np.arange(16, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(engine.run(rows)[0], rows)
    assert Once.calls[3:6] == [[12, 13, 14, 15], [12, 13], [14, 15]]
