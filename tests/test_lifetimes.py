"""What is fitted can be freed: after `del` and a collection nothing of it is left."""

import copy
import gc
import os
import pickle
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, LRScheduler

from sklearn_featx import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from sklearn_featx.exceptions import DivergenceError
from sklearn_featx.flow import _compute
from sklearn_featx.training import FineTuneNet, RowsDataset, TailAndHead, start_head

STATUS = Path("/proc/self/statm")


@pytest.fixture
def data(digits):
    images, labels = digits
    return images[:24], labels[:24]


def fine_tuner(kind, backbone, **parameters):
    settings = {"max_epochs": 1, "random_state": 0, "C": 1.0, "image_size": 16, "unfreeze_depth": 1}
    return kind(backbone, **settings | parameters)


@pytest.fixture
def born(monkeypatch):
    """Weak references to all nets, modules, datasets and optimizers that are made in a test."""
    references = []

    def watch(cls):
        original = cls.__init__

        def spy(self, *args, **kwargs):
            references.append(weakref.ref(self))
            original(self, *args, **kwargs)

        monkeypatch.setattr(cls, "__init__", spy)

    for cls in (FineTuneNet, TailAndHead, RowsDataset, torch.optim.Optimizer):
        watch(cls)
    return references


def alive(references, *kinds):
    gc.collect()
    found = [reference() for reference in references]
    return [type(o).__name__ for o in found if o is not None and isinstance(o, kinds or object)]


KINDS = [FineTuneClassifier, FineTuneRegressor]


@pytest.mark.parametrize(
    ("kind", "depth"),
    [(FineTuneClassifier, 0), (FineTuneRegressor, 1), (FineTuneClassifier, "all")],
)
def test_nothing_is_left_of_a_fitted_one(kind, depth, small_net, data, born):
    model = fine_tuner(kind, small_net, unfreeze_depth=depth).fit(*data)
    model.predict(data[0])
    born.append(weakref.ref(model))
    del model
    assert alive(born) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_one_keeps_no_optimizer_and_no_rows(kind, small_net, data, born, monkeypatch):
    started_from = []

    def spy(head, embeddings, **settings):
        started_from.append(weakref.ref(embeddings))
        start_head(head, embeddings, **settings)

    monkeypatch.setattr("sklearn_featx.estimators._finetune_base.start_head", spy)
    model = fine_tuner(kind, small_net).fit(*data)
    model.predict(data[0])
    assert sorted(alive(born)) == ["FineTuneNet", "TailAndHead"]
    assert all(parameter.grad is None for parameter in model.net_.module_.parameters())
    assert [embeddings() for embeddings in started_from] == [None]


def test_partial_fit_keeps_its_optimizer_as_long_as_the_estimator(small_net, data, born):
    model = fine_tuner(FineTuneClassifier, small_net)
    for _ in range(3):
        model.partial_fit(*data, classes=[0, 1, 2])
        model.predict(data[0])
        assert sorted(alive(born)) == ["AdamW", *["FineTuneNet"] * 2, *["TailAndHead"] * 2]
    model.fit(*data)
    assert sorted(alive(born)) == ["FineTuneNet", "TailAndHead"]
    del model
    assert alive(born) == []


def test_an_own_scheduler_keeps_no_optimizer(small_net, data, born):
    scheduler = LRScheduler("StepLR", step_size=1)
    model = fine_tuner(FineTuneClassifier, small_net, callbacks=[scheduler]).fit(*data)
    assert alive(born, torch.optim.Optimizer) == []
    assert model.callbacks[0] is scheduler


class KnowsItsOwner(Callback):
    """A callback of a user's that holds the estimator."""

    owner = None


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_nothing_is_left_where_a_callback_knows_the_estimator(method, small_net, data, born):
    model = fine_tuner(FineTuneRegressor, small_net, callbacks=[KnowsItsOwner()])
    model.callbacks[0].owner = model
    for _ in range(2):
        getattr(model, method)(*data)
        model.predict(data[0])
    del model
    assert alive(born) == []


class KnowsItsEstimator:
    """Builds a head, and is a function of outputs; holds the estimator that it belongs to."""

    estimator = None

    def head(self, n_inputs, n_outputs):
        return torch.nn.Linear(n_inputs, n_outputs)

    def outputs(self, values):
        return values


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_nothing_is_left_where_parameters_hold_the_estimator(method, small_net, data, born):
    own = KnowsItsEstimator()
    own.estimator = model = fine_tuner(
        FineTuneRegressor,
        small_net,
        head=own.head,
        net_params={"predict_nonlinearity": own.outputs},
    )
    getattr(model, method)(*data).predict(data[0])
    born.append(weakref.ref(model))
    del own, model
    assert alive(born) == []


def test_nothing_is_left_of_a_search(small_net, data, born):
    search = GridSearchCV(
        fine_tuner(FineTuneClassifier, small_net), {"unfreeze_depth": [0, 1, 2]}, cv=2
    ).fit(*data)
    # The best one only, not the fit of each fold.
    assert sorted(alive(born)) == ["FineTuneNet", "TailAndHead"]
    del search
    assert alive(born) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_nothing_is_left_of_a_loaded_one_that_predicts(copied, small_net, data, born):
    model = fine_tuner(FineTuneClassifier, small_net).fit(*data)
    wanted = model.predict_proba(data[0])
    loaded = copied(model)
    del model
    assert alive(born) == []
    for _ in range(3):
        np.testing.assert_array_equal(loaded.predict_proba(data[0]), wanted)
    assert sorted(alive(born)) == ["FineTuneNet", "TailAndHead"]
    del loaded
    assert alive(born) == []


def test_a_failed_fit_leaves_nothing(small_net, data, born):
    model = fine_tuner(FineTuneClassifier, small_net, lr=1e30, optimizer="sgd", max_epochs=5)
    # Not by `pytest.raises`, which keeps the traceback, and with it all that the frames hold.
    failed = False
    try:
        model.fit(*data)
    except DivergenceError:
        failed = True
    assert failed
    assert alive(born) == []


def test_fitting_again_and_clones_keep_one_net_each(small_net, data, born):
    model = fine_tuner(FineTuneClassifier, small_net)
    for _ in range(4):
        model.fit(*data)
        clone(model)
    assert sorted(alive(born)) == ["FineTuneNet", "TailAndHead"]


def test_nothing_is_left_of_an_extractor(small_net, data):
    extractor = PretrainedFeatureExtractor(small_net, image_size=16).fit(data[0])
    extractor.transform(data[0])
    itself = weakref.ref(extractor)
    del extractor
    gc.collect()
    assert itself() is None


class Backbone:
    """Stands for one."""


class TestEngines:
    @pytest.fixture
    def made(self, monkeypatch):
        """Weak references to engines, which are made without a network."""
        monkeypatch.setattr(_compute, "_engines", weakref.WeakKeyDictionary())
        references = []

        class Engine:
            def __init__(self, *args, **kwargs):
                references.append(weakref.ref(self))

        monkeypatch.setattr(_compute, "make_engine", Engine)
        return references

    @staticmethod
    def recipe(backbone, tap, device="cpu"):
        return SimpleNamespace(
            backbone=backbone,
            network_taps=(tap,),
            arithmetic=_compute_arithmetic(device),
            trunk=(None, None),
            takes_levels=True,
            pools=[],
        )

    @pytest.mark.parametrize(("device", "most"), [("cpu", 8), ("cuda:0", 2), ("mps", 2)])
    def test_the_least_recently_used_goes(self, device, most, made):
        backbone = Backbone()
        recipes = [self.recipe(backbone, tap, device) for tap in range(most + 1)]
        for recipe in recipes[:most]:
            _compute.engine_for(recipe)
        first = _compute.engine_for(recipes[0])
        _compute.engine_for(recipes[most])
        alive = [reference() is not None for reference in made]
        assert alive == [True, False, *[True] * (most - 1)]
        assert _compute.engine_for(recipes[0]) is first
        assert len(made) == most + 1

    def test_devices_do_not_compete(self, made):
        backbone = Backbone()
        for device in ("cpu", "cuda:0", "cuda:1"):
            for tap in range(2):
                _compute.engine_for(self.recipe(backbone, tap, device))
        assert all(reference() is not None for reference in made)

    def test_engines_go_with_their_backbone(self, made):
        _compute.engine_for(self.recipe(Backbone(), 0))
        gc.collect()
        assert not _compute._engines


def _compute_arithmetic(device):
    from sklearn_featx.flow._recipe import Arithmetic

    return Arithmetic(torch.device(device), "float32", "torch")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")
def test_200_fits_leave_memory_flat(data, small_net_factory):
    """Own networks too, which differ from fit to fit, so that each is traced and cut anew."""
    images, labels = data
    grown = []
    for i in range(200):
        kind = KINDS[i % 2]
        backbone = small_net_factory(seed=i if i % 4 == 0 else 0)
        model = fine_tuner(kind, backbone, unfreeze_depth=1 + i % 3, cache=False).fit(
            images, labels
        )
        model = pickle.loads(pickle.dumps(model))
        model.predict(images)
        model.partial_fit(images, labels)
        del model
        if i in (59, 199):
            gc.collect()
            grown.append(int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    print(f"140 fits: {grown[1] - grown[0]:+.1f} MiB")  # noqa: T201 # the figure of the bar
    assert grown[1] - grown[0] < 16
