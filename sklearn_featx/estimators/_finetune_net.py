"""The net of a fine-tuner: how it is made from settings, and how long it is kept.

Estimators hold arrays. Their nets are kept beside them, in memos that keep no estimator alive: what
makes a module is a plan, which knows the backbone and some settings, and no estimator. A net that
predicts is never trained again: `partial_fit` trains another one, and then its arrays take over.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from sklearn.base import BaseEstimator

from .._parallel import ForkSafeLock, answer_in_children
from .._typing import AnyArray
from ..backbones import Backbone
from ..exceptions import WeightsError
from ..training import FineTuneNet, LinearModel, TailAndHead, load_trained_state, make_head

# What is done to a new head before training.
Start: TypeAlias = Callable[[Any], None]
State: TypeAlias = Mapping[str, AnyArray]


@dataclass(frozen=True)
class ModulePlan:
    """All that a tail and head are made from.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    split : int
        Number of stages before the tail.
    trained : tuple of bool
        Whether each stage of the tail is trained.
    head : {"linear", "mlp"}, nn.Module or callable
        As in the estimators.
    n_inputs, n_outputs : int
        Numbers of inputs and outputs of the head.
    seed : int
        Seed of the head.
    is_probe : bool
        Whether the head is a closed solution, exact to float64, which nothing trains in float32.
    reads_all : bool
        Whether the head reads all stages, not the last one alone.
    batch_norm : {"frozen", "train"}
        As in the estimators.
    mixed_precision : bool
        Whether products are computed in bfloat16.
    device : torch.device or str
        Where the net is.
    float_levels : bool
        Whether images of floating point that enter the network are levels from 0 to 255.
    """

    backbone: Backbone
    split: int
    trained: tuple[bool, ...]
    head: Any
    n_inputs: int
    n_outputs: int
    seed: int
    is_probe: bool
    reads_all: bool
    batch_norm: Any
    mixed_precision: bool
    device: Any
    float_levels: bool

    def make(self, start: Start | None = None, state: State | None = None) -> TailAndHead:
        """Return a new module that starts as its head does, or where an earlier one ended."""
        stages, trained = self.backbone.tail(self.split), list(self.trained)
        if self.split == 0:
            normalize = self.backbone.normalize(float_levels=self.float_levels)
            stages, trained = [normalize, *stages], [False, *trained]
        head = make_head(self.head, self.n_inputs, self.n_outputs, seed=self.seed)
        if self.is_probe:
            head.double()
        if start is not None:
            start(head)
        module = TailAndHead(
            stages,
            head,
            trained=trained,
            batch_norm=self.batch_norm,
            mixed_precision=self.mixed_precision,
            # Pooling does nothing to vectors; an own network may end in a feature map.
            pool=self.backbone.pool("avg"),
            n_read=len(self.trained) if self.reads_all else 1,
        )
        if state is not None:
            load_trained_state(module, state)
        return module

    def check_backbone(self, wanted: str) -> None:
        """Raise a `WeightsError` if the backbone is not that of a digest."""
        if self.backbone.digest(len(self.backbone.stages)) != wanted:
            raise WeightsError(
                f"backbone {self.backbone.name!r} is not the one that this estimator was fitted "
                "on: its weights or its structure differ. Fit again, or restore the old weights."
            )


class _Kept(NamedTuple):
    """A net, and what it was made from."""

    plan: ModulePlan
    state: State
    net: FineTuneNet


class _Nets:
    """One net for each estimator that is alive and has not changed since."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[BaseEstimator, _Kept] = weakref.WeakKeyDictionary()
        self._lock = ForkSafeLock()

    def get(self, estimator: BaseEstimator, plan: ModulePlan, state: State) -> FineTuneNet | None:
        kept = self._kept.get(estimator)
        if kept is not None and kept.state is state and kept.plan == plan:
            return kept.net
        return None

    def keep(self, estimator: BaseEstimator, kept: _Kept) -> None:
        with self._lock:
            self._kept[estimator] = kept

    def drop(self, estimator: BaseEstimator) -> None:
        with self._lock:
            self._kept.pop(estimator, None)


# Those that predict, which any number of threads may share; and those that `partial_fit` trains,
# with their optimizers.
_predicting, _training = _Nets(), _Nets()
_building = ForkSafeLock()


def predicting_net(
    estimator: BaseEstimator,
    plan: ModulePlan,
    state: State,
    make: Callable[[], FineTuneNet],
    history: Sequence[Mapping[str, Any]],
) -> FineTuneNet:
    """Return the net that predicts for an estimator, made when there is none.

    Parameters
    ----------
    estimator : BaseEstimator
        It is not kept alive.
    plan : ModulePlan
        What its module is made from.
    state : mapping of str to ndarray
        What was trained.
    make : callable
        Makes a net from plan and state.
    history : sequence of mapping
        The epochs of the training.
    """
    net = _predicting.get(estimator, plan, state)
    if net is not None:
        return net
    # One thread builds, the others wait for it.
    with _building:
        net = _predicting.get(estimator, plan, state)
        if net is None:
            net = make().initialize()
            net.restore_history(history)
            _predicting.keep(estimator, _Kept(plan, state, _released(net, plan, state)))
    return net


def keep_predicting(
    estimator: BaseEstimator, plan: ModulePlan, state: State, net: FineTuneNet
) -> None:
    """Keep the net that `fit` has trained, for prediction; one of `partial_fit` is let go."""
    _predicting.keep(estimator, _Kept(plan, state, _released(net, plan, state)))
    _training.drop(estimator)


def _released(net: FineTuneNet, plan: ModulePlan, state: State) -> FineTuneNet:
    """Let go of what only training needs."""
    # A factory may hold embeddings, which the head started from.
    net.module = partial(plan.make, state=state)
    net.release()
    answer_in_children()
    return net


def take_training(estimator: BaseEstimator, plan: ModulePlan, state: State) -> FineTuneNet | None:
    """Return the net that the last `partial_fit` trained; from then on it is the caller's alone."""
    with _building:
        net = _training.get(estimator, plan, state)
        _training.drop(estimator)
    return net


def keep_training(
    estimator: BaseEstimator, plan: ModulePlan, state: State, net: FineTuneNet
) -> None:
    """Keep a net, with its optimizer, for the next `partial_fit`."""
    net.module = partial(plan.make, state=state)
    # A user's callback may know the estimator; the next call has the callbacks again.
    net.callbacks, net.callbacks_ = [], []
    answer_in_children()
    _predicting.drop(estimator)
    _training.keep(estimator, _Kept(plan, state, net))


class _Probes:
    """Linear probes by what they depend on: a search shares them over depths and rates."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._probes: dict[Any, LinearModel] = {}
        self._lock = ForkSafeLock()

    def get(self, key: Any, solve: Callable[[], LinearModel]) -> LinearModel:
        """Return the probe of a key. Solved outside of the lock: two threads may both solve it."""
        probe = self._probes.get(key)
        if probe is None:
            probe = solve()
        with self._lock:
            # The last one is the most recently used.
            self._probes.pop(key, None)
            self._probes[key] = probe
            while len(self._probes) > 1 and self._n_bytes() > self._max_bytes:
                del self._probes[next(iter(self._probes))]
        return probe

    def _n_bytes(self) -> int:
        return sum(probe.weight.nbytes + probe.bias.nbytes for probe in self._probes.values())


# The folds of some searches: a probe of 2,048 columns and 100 classes takes 1.6 MB.
probes = _Probes(2**26)
