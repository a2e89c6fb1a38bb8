"""Ctrl-C, too little memory, threads and processes: nothing is lost and nothing left behind."""

import asyncio
import functools
import json
import linecache
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from sklearn_featx.engines._torch import TorchEngine
from sklearn_featx.exceptions import BackboneError
from sklearn_featx.store import FeatureStore, RecipeRows

EXTRACTION = """
import sys, threading, multiprocessing, json, signal
import numpy as np, torch
from sklearn_featx import PretrainedFeatureExtractor
# Where the tests run in the background, Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
images = np.random.default_rng(0).integers(0, 256, (5000, 64, 64), np.uint8)
try:
    PretrainedFeatureExtractor(cache=sys.argv[1], n_jobs=2).transform(images)
except KeyboardInterrupt:
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    for thread in others:  # A moment for one that was just starting, or ending.
        thread.join(0.5)
    left = [t.name for t in others if t.is_alive()]
    print(json.dumps({"threads": left, "processes": len(multiprocessing.active_children())}))
    sys.exit(7)
"""

TRAINING = """
import sys, threading, multiprocessing, json, signal
from pathlib import Path
import numpy as np, torch
from skorch.callbacks import Callback
from sklearn_featx import FineTuneClassifier
# Where the tests run in the background, Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)

class Tell(Callback):
    def on_epoch_end(self, net, **kwargs):
        Path(sys.argv[1]).touch()

images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
clf = FineTuneClassifier(max_epochs=100_000, image_size=32, C=1.0, callbacks=[Tell()])
try:
    clf.fit(images, np.arange(40) % 2)
except KeyboardInterrupt:
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    print(json.dumps({
        "threads": left, "processes": len(multiprocessing.active_children()),
        "epochs": len(clf.history_), "predicted": len(clf.predict(images)),
    }))
    sys.exit(7)
"""


def interrupt(script, argument, ready, tmp_path):
    """Run a script, send Ctrl-C once `ready()`, and return what it said and the seconds it took."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(argument)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        deadline = time.monotonic() + 100
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 7
    return json.loads(said), time.monotonic() - start, list(scratch.iterdir())


class TestCtrlC:
    def test_extraction_ends_in_5_seconds_and_keeps_its_rows(self, tmp_path):
        store = FeatureStore(tmp_path / "store")
        said, seconds, left = interrupt(
            EXTRACTION, store.path, lambda: store.info().n_rows > 0, tmp_path
        )
        assert said == {"threads": [], "processes": 0}
        assert seconds < 5
        assert left == []
        assert 0 < store.info().n_rows < 5000
        names = {path.name.split(".")[0] for path in Path(store.path).iterdir()}
        assert len(names) <= 2, "a temporary file was left in the store"

    @pytest.mark.parametrize("cached", [False, True])
    def test_no_thread_outlives_one_in_any_line(self, cached, small_net_factory, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
        seen, where, tracer = set(), None, sys.gettrace()

        def workers():
            return [t for t in threading.enumerate() if t.name.startswith("featx-worker")]

        @functools.cache
        def is_of_the_flow(file):
            return bool({"flow", "_parallel.py", "_progress.py"} & set(Path(file).parts))

        def trace(frame, event, arg):
            line = (frame.f_code.co_filename, frame.f_lineno)
            if not is_of_the_flow(line[0]):
                return None
            if "pool.shutdown" in linecache.getline(*line):
                return trace
            if event == "line" and line not in seen and workers():
                seen.add(line)
                nonlocal where
                where = line
                raise KeyboardInterrupt
            return trace

        for i in range(1000):
            extractor = PretrainedFeatureExtractor(
                small_net_factory(),
                image_size=8,
                cache=tmp_path / str(i) if cached else False,
                n_jobs=2,
                batch_size=4,
            )
            sys.settrace(trace)
            try:
                extractor.transform(images)
            except KeyboardInterrupt:
                sys.settrace(tracer)
                # The traceback, and all that its frames hold, is still there.
                assert not workers(), where
            else:
                break
            finally:
                sys.settrace(tracer)
        assert {Path(file).stem for file, _ in seen} >= {"_parallel", "_progress", "_compute"}

    def test_nobody_waits_for_one_while_rows_were_claimed(self, digits, tmp_path, monkeypatch):
        claim, asked = RecipeRows.claim, []

        def interrupted(rows, keys):
            asked.append((rows, keys, claim(rows, keys)))
            raise KeyboardInterrupt

        monkeypatch.setattr(RecipeRows, "claim", interrupted)
        with pytest.raises(KeyboardInterrupt):
            PretrainedFeatureExtractor(cache=tmp_path).transform(digits[0])
        (rows, keys, claimed), *_ = asked
        assert claimed
        anew = FeatureStore(tmp_path).rows(rows.recipe)
        with ThreadPoolExecutor(1) as another:
            assert another.submit(claim, anew, keys).result() == claimed

    @pytest.mark.slow
    def test_training_ends_in_5_seconds_and_the_model_can_be_used(self, tmp_path):
        ready = tmp_path / "ready"
        said, seconds, left = interrupt(TRAINING, ready, ready.exists, tmp_path)
        assert said["threads"] == []
        assert said["processes"] == 0
        assert said["epochs"] >= 1
        assert said["predicted"] == 40
        assert seconds < 5
        assert left == []


class Stop(Callback):
    """Presses Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == self.epoch:
            raise KeyboardInterrupt


def raising(error):
    def method(*args):
        raise error

    return method


class TestInterruptedTraining:
    def tuner(self, net, stop, **parameters):
        settings = {"unfreeze_depth": 1, "max_epochs": 6, "C": 1.0, "random_state": 0, "lr": 0.01}
        return FineTuneClassifier(net, callbacks=[Stop(stop)], **settings | parameters)

    def test_what_was_learned_is_kept(self, small_net, digits):
        clf = self.tuner(small_net, 3)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*digits)
        assert len(clf.history_) == 2
        assert all("train_loss" in epoch for epoch in clf.history_)
        assert clf.predict(digits[0]).shape == (60,)
        head = next(iter(clf.trained_state_))
        early = self.tuner(small_net, 1)
        with pytest.raises(KeyboardInterrupt):
            early.fit(*digits)
        assert early.history_ == []
        assert not np.array_equal(early.trained_state_[head], clf.trained_state_[head])

    def test_with_early_stopping_the_best_weights_are_kept(self, small_net, digits):
        settings = {"early_stopping": True, "validation_fraction": 0.3, "lr": 1.0}
        clf = self.tuner(small_net, 4, **settings)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*digits)
        losses = [epoch["valid_loss"] for epoch in clf.history_]
        assert len(losses) == 3
        best = int(np.argmin(losses))
        # Training up to the best epoch, by the same schedule, leads to the same weights.
        again = self.tuner(small_net, best + 2, **settings)
        with pytest.raises(KeyboardInterrupt):
            again.fit(*digits)
        for name, values in clf.trained_state_.items():
            np.testing.assert_array_equal(values, again.trained_state_[name])

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("depth", [0, 1])
    def test_before_training_nothing_changes(
        self, small_net, digits, depth, interrupt, monkeypatch
    ):
        X, y = digits
        settings = {"unfreeze_depth": depth, "max_epochs": 1, "C": 1.0, "random_state": 0}
        clf = FineTuneClassifier(small_net, image_size=16, **settings)
        with monkeypatch.context() as patch:
            patch.setattr(FineTuneClassifier, "_learn", raising(interrupt))
            with pytest.raises(interrupt):
                clf.fit(X, y)
        with pytest.raises(NotFittedError):
            check_is_fitted(clf)
        before = clf.fit(X, y).predict_proba(X)
        clf.set_params(image_size=24)
        with monkeypatch.context() as patch:
            patch.setattr(FineTuneClassifier, "_learn", raising(interrupt))
            with pytest.raises(interrupt):
                clf.fit(X, np.array(["a", "b", "c"])[2 - y])
        clf.set_params(image_size=16)
        assert clf.classes_.tolist() == [0, 1, 2]
        np.testing.assert_allclose(clf.predict_proba(X), before, atol=1e-6)

    def test_a_callback_that_ends_the_training_is_no_interrupt(self, small_net, digits):
        class Enough(Callback):
            def on_epoch_end(self, net, **kwargs):
                if len(net.history) == 2:
                    raise KeyboardInterrupt

        clf = FineTuneClassifier(small_net, callbacks=[Enough()], max_epochs=6, C=1.0)
        assert len(clf.fit(*digits).history_) == 2

    def test_ctrl_c_in_a_callback_after_an_epoch_is_one(self, small_net, digits):
        class Press(Callback):
            def on_epoch_end(self, net, **kwargs):
                if len(net.history) == 2:
                    signal.raise_signal(signal.SIGINT)

        # Python's own, whatever the process was started with: in the background it is ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            clf = FineTuneClassifier(small_net, callbacks=[Press()], max_epochs=6, C=1.0)
            with pytest.raises(KeyboardInterrupt):
                clf.fit(*digits)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGINT, before)
        assert len(clf.history_) == 2
        assert clf.predict(digits[0]).shape == (60,)

    def test_a_handler_that_does_not_interrupt_decides(self, small_net, digits):
        class Press(Callback):
            def on_epoch_end(self, net, **kwargs):
                signal.raise_signal(signal.SIGINT)

        pressed = []
        before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
        try:
            clf = FineTuneClassifier(small_net, callbacks=[Press()], max_epochs=3, C=1.0)
            assert len(clf.fit(*digits).history_) == len(pressed) == 3
        finally:
            signal.signal(signal.SIGINT, before)

    def test_partial_fit_and_the_next_fit(self, small_net, digits):
        clf = self.tuner(small_net, 1)
        with pytest.raises(KeyboardInterrupt):
            clf.partial_fit(*digits, classes=[0, 1, 2])
        assert clf.predict(digits[0]).shape == (60,)
        clf.set_params(callbacks=None).fit(*digits)
        assert len(clf.history_) == 6

    def test_a_regressor_too(self, small_net, digits):
        reg = FineTuneRegressor(small_net, callbacks=[Stop(2)], max_epochs=3, C=1.0)
        with pytest.raises(KeyboardInterrupt):
            reg.fit(digits[0], digits[1].astype(float))
        assert np.isfinite(reg.predict(digits[0])).all()


class TestMemory:
    def test_a_batch_that_does_not_fit_is_halved_on_a_cpu(self, small_net, digits, monkeypatch):
        original, passed = TorchEngine._pass, []

        def small_memory(engine, batch):
            if len(batch) > 3:
                # The very error of PyTorch: an exbibyte is never there.
                torch.empty(2**60, dtype=torch.uint8)
            passed.append(len(batch))
            return original(engine, batch)

        wanted = PretrainedFeatureExtractor(small_net, cache=False).transform(digits[0])
        monkeypatch.setattr("sklearn_featx.flow._compute._engines", {})
        monkeypatch.setattr(TorchEngine, "_pass", small_memory)
        extractor = PretrainedFeatureExtractor(small_net, cache=False, batch_size=16, n_jobs=1)
        np.testing.assert_allclose(extractor.transform(digits[0]), wanted, rtol=1e-4, atol=1e-6)
        assert max(passed) == 2
        assert sum(passed) == 60

    def test_other_errors_are_not_taken_for_it(self, small_net, digits, monkeypatch):
        def fail(engine, batch):
            raise RuntimeError("something else")

        monkeypatch.setattr(TorchEngine, "_pass", fail)
        with pytest.raises(BackboneError, match="something else"):
            PretrainedFeatureExtractor(small_net, cache=False).transform(digits[0])


def transform(extractor, images):
    torch.set_num_threads(1)
    return extractor.transform(images)


def in_child(extractor, images, queue):
    queue.put(extractor.transform(images))


class TestThreadsAndProcesses:
    @pytest.fixture
    def extractor(self, tmp_path):
        return PretrainedFeatureExtractor(image_size=32, cache=FeatureStore(tmp_path / "store"))

    @pytest.fixture
    def wanted(self, digits):
        return PretrainedFeatureExtractor(image_size=32, cache=False).transform(digits[0][:24])

    def test_eight_threads_on_one_estimator(self, extractor, wanted, digits):
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda _: extractor.transform(digits[0][:24]), range(8)))
        for given in rows:
            np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(given, rows[0])
        assert not [t for t in threading.enumerate() if t.name.startswith("featx-worker")]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_after_a_fork(self, extractor, wanted, digits):
        extractor.transform(digits[0][:12])
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=in_child, args=(extractor, digits[0][:24], queue))
        child.start()
        given = queue.get(timeout=60)
        child.join(60)
        assert child.exitcode == 0
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(given, extractor.transform(digits[0][:24]))

    @pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given:UserWarning")
    @pytest.mark.slow
    def test_loky_workers(self, extractor, wanted, digits):
        tasks = (joblib.delayed(transform)(extractor, digits[0][:24]) for _ in range(2))
        rows = joblib.Parallel(2)(tasks)
        for given in rows:
            np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rows[0], rows[1])

    def test_inside_a_running_event_loop_as_in_a_notebook(self, extractor, wanted, digits):
        async def cell():
            return extractor.set_params(verbose=1).transform(digits[0][:24])

        np.testing.assert_allclose(asyncio.run(cell()), wanted, rtol=1e-4, atol=1e-5)
