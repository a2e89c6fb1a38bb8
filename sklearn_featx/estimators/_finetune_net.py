"""The nets of a fine-tuner: construction from a plan, reuse, and lifetime.

A fitted estimator is defined by arrays and builtins. Its nets are kept in an attribute that is
neither copied nor saved, and are freed with the estimator. A net that predicts is never trained:
`partial_fit` trains another net, and prediction then uses its arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from sklearn.base import BaseEstimator

from .._parallel import ForkSafeLock, answer_in_children
from .._typing import AnyArray, BagPooling
from ..backbones import Backbone, digest_structure
from ..training import (
    EARLIER_POOLING,
    LAST_POOLING,
    FineTuneNet,
    LinearModel,
    TailAndHead,
    in_format_of,
    load_trained_state,
    make_head,
)

# Changes a new head before training.
Start: TypeAlias = Callable[[Any], None]
State: TypeAlias = Mapping[str, AnyArray]

# The attribute that holds the nets of an estimator.
NETS = "_nets"


@dataclass(frozen=True)
class ModulePlan:
    """Everything that a module of tail and head is made from.

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
        Whether the head is the linear probe, which is solved in float64 and not trained.
    reads_all : bool
        Whether the head reads all stages, not only the last one.
    bag_poolings : tuple of {"mean", "max", "min", "std"}
        How the rows of the images of a bag become one; with none: one image for each row.
    n_channels : int
        Number of channels of an image that pass alone, each a row.
    batch_norm : {"frozen", "train"}
        As in the estimators.
    mixed_precision : bool
        Whether products are computed in bfloat16.
    device : torch.device or str
        Device of the net.
    float_levels : bool
        Whether floating point images that enter the network are levels from 0 to 255.
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
    bag_poolings: tuple[BagPooling, ...]
    n_channels: int
    batch_norm: Any
    mixed_precision: bool
    device: Any
    float_levels: bool

    def head_digest(self) -> str | None:
        """Return the digest of an own head, without what training changes; None for a name."""
        if isinstance(self.head, str):
            return None
        return digest_structure(self._make_head())

    def make(self, start: Start | None = None, state: State | None = None) -> TailAndHead:
        """Return a new module, with a started head or with the state of an earlier training."""
        stages, trained = self.backbone.tail(self.split), list(self.trained)
        if self.split == 0:
            normalize = self.backbone.normalize(float_levels=self.float_levels)
            stages = [in_format_of(stages, normalize), *stages]
            trained = [False, *trained]
        head = self._make_head()
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
            # An own network may end in a feature map. Pooling does not change vectors.
            pools=(self.backbone.pool(EARLIER_POOLING), self.backbone.pool(LAST_POOLING)),
            n_read=len(self.trained) if self.reads_all else 1,
            # Without a tail, the rows are vectors, which are pooled already.
            bag_poolings=self.bag_poolings if self.trained else (),
            n_channels=self.n_channels,
        )
        if state is not None:
            load_trained_state(module, state)
        return module

    def _make_head(self) -> Any:
        return make_head(self.head, self.n_inputs, self.n_outputs, seed=self.seed)


class _Made(NamedTuple):
    """A net, its plan, and the arrays of the state that it was made from."""

    net: FineTuneNet
    plan: ModulePlan
    arrays: dict[str, AnyArray]

    def fits(self, plan: ModulePlan, state: State) -> bool:
        """Whether plan and state are unchanged."""
        return self.plan == plan and _are_same(self.arrays, state)


class _Tuned(NamedTuple):
    """A backbone with trained weights, its frozen backbone and split, and the trained arrays."""

    tuned: Backbone
    backbone: Backbone
    split: int
    arrays: dict[str, AnyArray]


def _are_same(arrays: State, state: State) -> bool:
    """Whether two states have the same arrays, which are read-only: identity decides."""
    return arrays.keys() == state.keys() and all(arrays[k] is state[k] for k in state)


class _Nets:
    """The networks of one estimator: any number of threads share all but `training`."""

    predicting: _Made | None = None
    training: _Made | None = None
    tuned: _Tuned | None = None


_building = ForkSafeLock()


def _nets_of(estimator: BaseEstimator) -> _Nets:
    nets: _Nets = vars(estimator).setdefault(NETS, _Nets())
    return nets


def predicting_net(
    estimator: BaseEstimator,
    plan: ModulePlan,
    state: State,
    make: Callable[[], FineTuneNet],
    history: Sequence[Mapping[str, Any]],
) -> FineTuneNet:
    """Return the net that predicts for an estimator; make it if plan or state have changed.

    Parameters
    ----------
    estimator : BaseEstimator
        The fitted estimator.
    plan : ModulePlan
        Its plan.
    state : mapping of str to ndarray
        Its trained state.
    make : callable
        Makes a net from plan and state.
    history : sequence of mapping
        The epochs of the training.
    """
    nets = _nets_of(estimator)
    made = nets.predicting
    if made is not None and made.fits(plan, state):
        return made.net
    # One thread builds, the others wait for it.
    with _building:
        made = nets.predicting
        if made is None or not made.fits(plan, state):
            net = make().initialize()
            net.restore_history(history)
            made = nets.predicting = _released(net, plan, state)
    return made.net


def keep_predicting(
    estimator: BaseEstimator, plan: ModulePlan, state: State, net: FineTuneNet
) -> None:
    """Keep the net that `fit` has trained for prediction; drop the one of `partial_fit`."""
    nets = _nets_of(estimator)
    nets.predicting, nets.training = _released(net, plan, state), None


def _released(net: FineTuneNet, plan: ModulePlan, state: State) -> _Made:
    """Drop what only training needs."""
    # The factory may hold the embeddings that the head started from.
    net.module = partial(plan.make, state=state)
    net.release()
    answer_in_children()
    return _Made(net, plan, dict(state))


def tuned_backbone(
    estimator: BaseEstimator,
    backbone: Backbone,
    split: int,
    state: State,
    make: Callable[[], Backbone],
) -> Backbone:
    """Return the backbone with trained weights; make it if one of the arguments has changed.

    Parameters
    ----------
    estimator : BaseEstimator
        The fitted estimator.
    backbone : Backbone
        Its frozen backbone.
    split : int
        Number of stages before the tail.
    state : mapping of str to ndarray
        Its trained state.
    make : callable
        Makes the backbone from the others.
    """
    nets = _nets_of(estimator)
    known = nets.tuned
    if known is None or known[1:3] != (backbone, split) or not _are_same(known.arrays, state):
        known = nets.tuned = _Tuned(make(), backbone, split, dict(state))
    return known.tuned


def take_training(estimator: BaseEstimator, plan: ModulePlan, state: State) -> FineTuneNet | None:
    """Return the net of the last `partial_fit`, which from now on only the caller holds."""
    nets = _nets_of(estimator)
    with _building:
        made, nets.training = nets.training, None
    return made.net if made is not None and made.fits(plan, state) else None


def keep_training(
    estimator: BaseEstimator, plan: ModulePlan, state: State, net: FineTuneNet
) -> None:
    """Keep a net, with its optimizer, for the next `partial_fit`."""
    net.module = partial(plan.make, state=state)
    # The next call sets the callbacks of the estimator, which may have changed.
    net.callbacks, net.callbacks_ = [], []
    answer_in_children()
    nets = _nets_of(estimator)
    nets.predicting, nets.training = None, _Made(net, plan, dict(state))


class _Probes:
    """Linear probes by everything that they depend on: the fits of a search share them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._probes: dict[Any, LinearModel] = {}
        self._lock = ForkSafeLock()

    def get(self, key: Any, solve: Callable[[], LinearModel]) -> LinearModel:
        """Return the probe of a key; it is solved without the lock, so two threads may solve it."""
        probe = self._probes.get(key)
        if probe is None:
            probe = solve()
        with self._lock:
            # The most recently used probe is the last one.
            self._probes.pop(key, None)
            self._probes[key] = probe
            while len(self._probes) > 1 and self._n_bytes() > self._max_bytes:
                del self._probes[next(iter(self._probes))]
        return probe

    def _n_bytes(self) -> int:
        return sum(probe.weight.nbytes + probe.bias.nbytes for probe in self._probes.values())


# Enough for the folds of some searches: a probe of 2,048 columns and 100 classes takes 1.6 MB.
probes = _Probes(2**26)
