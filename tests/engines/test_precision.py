"""The type to compute in."""

import platform
import timeit
import warnings
import weakref

import pytest
import torch

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.engines import _precision, resolve_precision
from sklearn_featx.exceptions import SlowPrecisionWarning
from sklearn_featx.flow import _compute

CPU = torch.device("cpu")


@pytest.fixture
def seconds(monkeypatch):
    """Seconds that products take, for a test to set; forgotten before and after."""
    _precision._cpu_gains_by_bfloat16.cache_clear()
    found = {torch.float32: [2.0] * 4, torch.bfloat16: [1.0] * 4}
    monkeypatch.setattr(_precision, "_cpu_has", lambda *names: True)
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
        monkeypatch.setattr(_precision, "_cpu_has", lambda *names: False)
        assert resolve_precision("auto", CPU) is torch.float32
        assert len(seconds[torch.float32]) == 4

    def test_float32_where_the_product_is_not_implemented(self, seconds, monkeypatch):
        def refuse(dtype):
            raise RuntimeError(f"not implemented for {dtype}")

        monkeypatch.setattr(_precision, "_time_product", refuse)
        assert resolve_precision("auto", CPU) is torch.float32


class TestInstructions:
    """What the processor has, as far as each version of PyTorch says it."""

    @pytest.mark.parametrize("present", [True, False])
    def test_by_the_public_function(self, monkeypatch, present):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {"amx_bf16": present}, raising=False
        )
        assert _precision._cpu_has("avx512_bf16", "amx_bf16") is present

    @pytest.mark.parametrize("present", [True, False])
    def test_by_the_functions_of_older_versions(self, monkeypatch, present):
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: present, raising=False)
        assert _precision._cpu_has("avx512_bf16", "amx_bf16") is present

    def test_unknown_to_pytorch(self, monkeypatch):
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        assert _precision._cpu_has("unheard_of") is False

    def test_float16_without_them_is_refused(self, monkeypatch):
        monkeypatch.setattr(_precision, "_cpu_has", lambda *names: False)
        with pytest.raises(ValueError, match="precision='float16'"):
            resolve_precision("float16", CPU)


class TestEmulation:
    """On processors without AVX-512 it takes many times as long (pytorch#146508, pytorch#86550)."""

    @pytest.fixture
    def processor(self, monkeypatch):
        """Sets the instructions that this processor is said to have."""

        def has(*present):
            monkeypatch.setattr(_precision, "_cpu_has", lambda *names: bool({*names} & {*present}))
            monkeypatch.setattr(platform, "machine", lambda: "AMD64")

        # An engine that is kept has warned.
        monkeypatch.setattr(_compute, "_engines", weakref.WeakKeyDictionary())
        _precision._has_bfloat16_kernels.cache_clear()
        yield has
        _precision._has_bfloat16_kernels.cache_clear()

    @pytest.mark.parametrize("depth", [0, 1, "all"])
    def test_said_before_a_training(self, processor, depth, small_net, digits):
        processor()
        classifier = FineTuneClassifier(
            small_net, unfreeze_depth=depth, precision="bfloat16", max_epochs=1, cache=False
        )
        with pytest.warns(SlowPrecisionWarning, match="Use precision='auto'") as caught:
            classifier.fit(digits[0][:20], digits[1][:20])
        assert [warning.filename for warning in caught] == [__file__]

    def test_said_where_rows_are_computed_and_no_more_where_they_are_read(
        self, processor, small_net, digits, tmp_path
    ):
        processor()
        extractor = PretrainedFeatureExtractor(small_net, precision="bfloat16", cache=tmp_path)
        with pytest.warns(SlowPrecisionWarning) as caught:
            extractor.transform(digits[0][:4])
        assert [warning.filename for warning in caught] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error", SlowPrecisionWarning)
            extractor.transform(digits[0][:4])

    @pytest.mark.parametrize(
        ("instructions", "precision"), [((), "float32"), ((), "auto"), (("avx512",), "bfloat16")]
    )
    def test_not_said_where_it_is_not_slow(
        self, processor, instructions, precision, small_net, digits
    ):
        processor(*instructions)
        extractor = PretrainedFeatureExtractor(small_net, precision=precision, cache=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SlowPrecisionWarning)
            extractor.transform(digits[0][:4])

    @pytest.mark.skipif(
        platform.machine() != "x86_64" or _precision._has_bfloat16_kernels(),
        reason="this processor has the instructions",
    )
    def test_it_is_slow_where_it_is_said(self):
        image, weight = torch.ones(1, 64, 56, 56), torch.ones(64, 64, 3, 3)

        def seconds(dtype):
            a, b = image.to(dtype), weight.to(dtype)
            return min(timeit.repeat(lambda: torch.conv2d(a, b), number=1, repeat=5))

        assert seconds(torch.bfloat16) > 2 * seconds(torch.float32)


def test_auto_is_the_faster_one_on_this_processor():
    _precision._cpu_gains_by_bfloat16.cache_clear()
    chosen = resolve_precision("auto", CPU)
    times = {
        dtype: min(_precision._time_product(dtype) for _ in range(5))
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


class TestConvolutionsInBfloat16:
    """On some processors PyTorch 2.5 gave 1 for a convolution of four ones (pytorch#163347)."""

    @pytest.fixture(autouse=True)
    def fresh(self):
        caches = (_precision._convolves_in_bfloat16, _precision._cpu_gains_by_bfloat16)
        for function in caches:
            function.cache_clear()
        yield
        for function in caches:
            function.cache_clear()

    def test_they_are_right_here(self):
        assert _precision._convolves_in_bfloat16()

    @pytest.mark.parametrize("fault", ["wrong", "raises"])
    def test_where_they_are_not_bfloat16_is_refused(self, monkeypatch, fault):
        right = torch.conv2d

        def convolve(image, weight, **settings):
            if image.dtype is torch.bfloat16 and fault == "raises":
                raise RuntimeError("could not create a primitive")
            return right(image, weight, **settings).div(4 if weight.shape[1] == 1 else 1)

        monkeypatch.setattr(torch, "conv2d", convolve)
        monkeypatch.setattr(_precision, "_cpu_has", lambda *names: True)
        with pytest.raises(ValueError, match="convolutions in bfloat16 wrongly"):
            resolve_precision("bfloat16", CPU)
        assert resolve_precision("auto", CPU) is torch.float32
