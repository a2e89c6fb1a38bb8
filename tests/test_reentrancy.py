"""Networks that keep state while they compute: one thread at a time."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.flow._compute import engine_for

X = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
Y = np.arange(24) % 2


class Workspace(nn.Module):
    """Writes into a buffer, and reads it later."""

    def __init__(self, write):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.last = nn.Conv2d(4, 4, 3)
        self.register_buffer("work", torch.zeros(4, 6, 6))
        self.write = write

    def forward(self, x):
        x = self.first(x)
        work = self.write(self.work, x[0])
        return self.last(x).mean((2, 3)) + work.mean((1, 2))


WRITING = {
    "copy_": lambda work, x: work.copy_(x),
    "zero_ and add_": lambda work, x: work.zero_().add_(x),
    "a view": lambda work, x: work.view(4, -1).copy_(x.flatten(1)).view_as(x),
    "a copy, which a trace takes once": lambda work, x: work.clone().copy_(x),
    "a constant, which a trace makes once": lambda work, x: torch.zeros(4, 6, 6).add_(x),
}
READING = {
    "add": lambda work, x: work.add(x),
    "in place on x": lambda work, x: x.mul(2).add_(work),
}


@pytest.mark.parametrize("how", WRITING)
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
def test_a_network_that_writes_into_its_tensors(how):
    # Each row has its own pass: what a row leaves behind must not be in the next one.
    network = Workspace(WRITING[how])
    before = network.work.clone()
    with torch.no_grad():
        pixels = torch.from_numpy(X / np.float32(255)).permute(0, 3, 1, 2)
        exact = [network(row[None])[0].numpy() for row in pixels]
        network.work.copy_(before)
    extractor = PretrainedFeatureExtractor(network, cache=False, batch_size=1, n_jobs=8)
    np.testing.assert_allclose(extractor.transform(X), exact, rtol=1e-4, atol=1e-5)
    assert torch.equal(network.work, before)
    engine = engine_for(extractor.work(X).predicting)
    assert engine.workers(8, n_jobs=8).n_workers == 1


@pytest.mark.parametrize("how", READING)
def test_one_that_reads_them(how):
    extractor = PretrainedFeatureExtractor(Workspace(READING[how]))
    assert engine_for(extractor.work(X).predicting).workers(8, n_jobs=8).n_workers == 8


class Keeping(nn.Module):
    """Keeps its input in an attribute while it computes; cannot be traced."""

    def __init__(self):
        super().__init__()
        self.first, self.last = Part(1), Part(4)

    def forward(self, x):
        return self.last(self.first(x)).mean((2, 3))


class Part(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, 4, 3, padding=1)

    def forward(self, x):
        assert float(x.detach().sum()) > -1e9
        self.kept = self.conv(x)
        time.sleep(0.003)
        return self.kept * 1


@pytest.fixture
def eight():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
class TestThreadsOfTheUser:
    def test_extractor(self, eight):
        extractor = PretrainedFeatureExtractor(Keeping(), cache=False).fit(X)
        expected = extractor.transform(X)
        found = list(eight.map(extractor.transform, [X[i : i + 1] for i in range(len(X))]))
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("depth", [1, "all"])
    def test_fine_tuner(self, eight, depth):
        classifier = FineTuneClassifier(
            Keeping(), unfreeze_depth=depth, C=1.0, max_epochs=1, cache=False, random_state=0
        ).fit(X, Y)
        expected = classifier.predict_proba(X)
        found = list(eight.map(classifier.predict_proba, [X[i : i + 1] for i in range(len(X))]))
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5)
