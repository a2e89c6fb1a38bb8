"""The type to compute in."""

import pytest
import torch

from sklearn_featx.engines import _precision, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture
def seconds(monkeypatch):
    """Seconds that products take, for a test to set; forgotten before and after."""
    _precision._cpu_gains_by_bfloat16.cache_clear()
    found = {torch.float32: [2.0] * 4, torch.bfloat16: [1.0] * 4}
    monkeypatch.setattr(_precision, "_cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(_precision, "_time_product", lambda dtype: found[dtype].pop())
    yield found
    _precision._cpu_gains_by_bfloat16.cache_clear()


class TestAutoOnACpu:
    def test_bfloat16_where_it_is_faster(self, seconds):
        assert resolve_precision("auto", CPU) is torch.bfloat16

    def test_float32_where_bfloat16_is_slow_though_native(self, seconds):
        seconds[torch.bfloat16] = [3.7] * 4
        assert resolve_precision("auto", CPU) is torch.float32

    def test_float32_where_little_is_gained(self, seconds):
        seconds[torch.bfloat16] = [1.9] * 4
        assert resolve_precision("auto", CPU) is torch.float32

    def test_what_disturbs_a_measurement_does_not_decide(self, seconds):
        seconds[torch.bfloat16] = [9.0, 1.0, 9.0, 9.0]
        assert resolve_precision("auto", CPU) is torch.bfloat16

    def test_measured_once(self, seconds):
        first = resolve_precision("auto", CPU)
        assert seconds == {torch.float32: [], torch.bfloat16: []}
        assert resolve_precision("auto", CPU) is first

    def test_not_measured_without_the_instructions(self, seconds, monkeypatch):
        monkeypatch.setattr(_precision, "_cpu_has_bfloat16", lambda: False)
        assert resolve_precision("auto", CPU) is torch.float32
        assert len(seconds[torch.float32]) == 4


def test_auto_is_the_faster_one_on_this_processor():
    _precision._cpu_gains_by_bfloat16.cache_clear()
    chosen = resolve_precision("auto", CPU)
    times = {
        dtype: min(_precision._time_product(dtype) for _ in range(20))
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert times[chosen] <= 1.5 * min(times.values())


def test_the_cpu_is_measured_whatever_the_default_device_is(monkeypatch):
    devices = []
    monkeypatch.setattr(torch, "mm", lambda a, b: devices.append((a.device, b.device)))
    with torch.device("meta"):
        _precision._time_product(torch.float32)
    assert devices == [(CPU, CPU)]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_type_is_never_changed(name):
    assert resolve_precision(name, CPU) is getattr(torch, name)
