"""The engine of OpenVINO: the same numbers, rows on their own, and errors with the way out."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.engines import make_engine
from sklearn_featx.exceptions import BackboneError, MissingDependencyError

pytest.importorskip("openvino")
CPU = torch.device("cpu")


def engine(network, n_results=1, name="openvino", dtype=torch.float32):
    pools = [nn.Identity()] * n_results
    return make_engine(name, network, pools, normalize=None, device=CPU, dtype=dtype)


class Untraceable(nn.Module):
    """Branches on its values."""

    def forward(self, x):
        return x + 1 if x.sum().item() > 0 else x


def error_in_child(function):
    """Return the error that a function raises in a forked child."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def call():
        try:
            function()
        except BackboneError as error:
            sender.send(str(error))

    child = context.Process(target=call)
    child.start()
    try:
        return receiver.recv() if receiver.poll(60) else "no answer"
    finally:
        child.kill()
        child.join()


def rows(n, *shape):
    return np.random.default_rng(0).random((n, *shape), dtype=np.float32)


@pytest.fixture(scope="module")
def converted(small_net_factory):
    """An engine for rows of shape (1, 16, 16)."""
    made = engine(small_net_factory().eval())
    made.run(rows(1, 1, 16, 16))
    return made


class TestNumbers:
    @pytest.mark.parametrize(
        "layer", [pytest.param(None, marks=pytest.mark.slow), ["blocks.0", "blocks.1"]]
    )
    def test_the_features_of_the_other_engine(self, digits, layer):
        settings = {"layer": layer, "image_size": 64, "cache": False}
        wanted = PretrainedFeatureExtractor(**settings).fit_transform(digits[0][:6])
        given = PretrainedFeatureExtractor(**settings, engine="openvino").fit_transform(
            digits[0][:6]
        )
        np.testing.assert_allclose(given, wanted, atol=1e-5 * np.abs(wanted).max())

    def test_rows_do_not_depend_on_their_batch_in_any_bit(self, converted):
        batch = rows(5, 1, 16, 16)
        (whole,) = converted.run(batch)
        for i in range(5):
            np.testing.assert_array_equal(converted.run(batch[i : i + 1])[0][0], whole[i])

    def test_threads_share_one_network(self, converted):
        batches = [rows(3, 1, 16, 16) + i for i in range(8)]
        with ThreadPoolExecutor(4) as pool:
            given = list(pool.map(converted.run, batches))
        assert len(converted._compiled) == 1
        for batch, (found,) in zip(batches, given, strict=True):
            np.testing.assert_array_equal(found, converted.run(batch)[0])

    def test_as_many_rows_run_at_a_time_as_threads_were_asked_for(self, small_net):
        made = engine(small_net.eval())

        def streams(n_batches, n_jobs):
            workers = made.workers(n_batches, n_jobs)
            # The network is converted by a worker, which has one thread.
            with ThreadPoolExecutor(1, initializer=workers.start) as pool:
                pool.submit(made.run, rows(1, 1, 16, 16)).result()
            (compiled,) = made._compiled.values()
            return compiled, compiled._compiled.get_property("NUM_STREAMS")

        assert streams(8, 1)[1] == 1
        # OpenVINO has no more than there are cores.
        most = min(2, os.cpu_count())
        second, n_streams = streams(1, 2)
        assert n_streams == most
        assert streams(8, 1) == (second, most)

    def test_images_of_several_sizes(self, small_net_factory):
        made, other = (engine(small_net_factory().eval(), name=n) for n in ("openvino", "torch"))
        for side in (16, 24):
            batch = rows(2, 1, side, side)
            np.testing.assert_allclose(made.run(batch)[0], other.run(batch)[0], atol=1e-5)


class TestErrors:
    def test_a_network_that_cannot_be_exported(self):
        with pytest.raises(BackboneError, match="Use engine='torch'"):
            engine(Untraceable()).run(rows(1, 3))

    def test_no_page_of_code_is_logged_then(self, caplog):
        with caplog.at_level("WARNING"), pytest.raises(BackboneError):
            engine(Untraceable()).run(rows(1, 3))
        assert caplog.records == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
    def test_a_forked_child_does_not_wait_forever(self, converted, small_net):
        batch = rows(1, 1, 16, 16)
        # The inherited engine, and a new one.
        for compute in (lambda: converted.run(batch), lambda: engine(small_net).run(batch)):
            assert "spawn or forkserver" in error_in_child(compute)

    def test_it_runs_on_cpus_alone(self, small_net):
        with pytest.raises(ValueError, match="device='cpu', or engine='torch'"):
            make_engine(
                "openvino", small_net, [], normalize=None, device=torch.device("meta"),
                dtype=torch.float32,
            )  # fmt: skip

    def test_compile_is_for_the_other_one(self, digits):
        with pytest.raises(ValueError, match="compile=True is for engine='torch'"):
            PretrainedFeatureExtractor(compile=True, engine="openvino").fit(digits[0])

    def test_not_installed(self, small_net, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingDependencyError, match=r"sklearn-featx\[openvino\]"):
            engine(small_net)


SIGNAL_AFTER_TWO = """
import faulthandler, gc, signal
import numpy as np
from torch import nn
from sklearn_featx.engines._openvino import OpenVinoEngine

# It has the main thread take signals on other memory, as notebooks and pytest do.
faulthandler.enable()
engines = [OpenVinoEngine(nn.Conv2d(3, 4, 3), [nn.Identity()]) for _ in range(2)]
for engine in engines:
    engine.run(np.zeros((1, 3, 8, 8), np.float32))
del engine
while engines:
    del engines[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.slow
def test_a_signal_after_two_engines_have_ended():
    command = [sys.executable, "-c", SIGNAL_AFTER_TWO]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n")


def test_a_result_that_occurs_under_several_poolings(digits):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    settings = {"layer": ["0", "2"], "pooling": ["avg", "max"], "cache": False}
    wanted = PretrainedFeatureExtractor(network, **settings).fit_transform(digits[0][:2])
    extractor = PretrainedFeatureExtractor(network, **settings, engine="openvino")
    given = extractor.fit_transform(digits[0][:2])
    np.testing.assert_array_equal(given[:, 8:12], given[:, 12:])
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


WITHOUT_TELEMETRY = """
import logging, socket, sys
import numpy as np
from torch import nn

def refuse(*arguments, **settings):
    raise AssertionError("a connection is made")

socket.socket.connect = socket.getaddrinfo = refuse
from sklearn_featx import PretrainedFeatureExtractor
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
extractor = PretrainedFeatureExtractor(network, engine="openvino", cache=False)
extractor.fit_transform(np.zeros((1, 8, 8, 3), np.uint8))
print("openvino_telemetry" in sys.modules, logging.getLogger().handlers)
import openvino_telemetry
"""


def test_nothing_is_reported_or_printed_and_no_logger_is_changed(tmp_path):
    # Without the variables by which OpenVINO knows that it is tested, and without a consent file.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "TF_BUILD", "JENKINS_URL")
    }
    command = [sys.executable, "-c", WITHOUT_TELEMETRY]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"HOME": str(tmp_path)}
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False []\n", "")
    assert list(tmp_path.iterdir()) == []
