"""Training of a tail and a head on rows, the activations at a split point.

The package is independent of images, backbones, engines and stores. Its interface takes and returns
arrays; torch and skorch are used inside.

::

    net = make_net(lambda: TailAndHead(stages, make_head("linear", 512, 10, seed=0), ...), ...)
    net.fit(RowsDataset(rows, codes), codes)
    logits = predict_rows(net, rows, 64)
"""

from ._augment import AugmentSpec, make_augment
from ._callbacks import GradualUnfreezing
from ._dataset import RowsDataset
from ._head import Head, make_head, start_head
from ._head_function import HeadFunction, head_function
from ._layout import in_format_of
from ._make_net import continue_fit, make_net
from ._module import EARLIER_POOLING, LAST_POOLING, TailAndHead
from ._net import FineTuneNet
from ._net_params import NET_PREFIXES
from ._optimizer import OptimizerSpec
from ._probe import (
    LinearModel,
    fit_linear_probe_classifier,
    fit_linear_probe_multilabel,
    fit_linear_probe_regressor,
)
from ._random import seeded
from ._scaling import Scaling
from ._state import embed_rows, load_trained_state, plain_history, predict_rows, trained_state
from ._validation_split import fix_split

__all__ = [
    "EARLIER_POOLING",
    "LAST_POOLING",
    "NET_PREFIXES",
    "AugmentSpec",
    "FineTuneNet",
    "GradualUnfreezing",
    "Head",
    "HeadFunction",
    "LinearModel",
    "OptimizerSpec",
    "RowsDataset",
    "Scaling",
    "TailAndHead",
    "continue_fit",
    "embed_rows",
    "fit_linear_probe_classifier",
    "fit_linear_probe_multilabel",
    "fit_linear_probe_regressor",
    "fix_split",
    "head_function",
    "in_format_of",
    "load_trained_state",
    "make_augment",
    "make_head",
    "make_net",
    "plain_history",
    "predict_rows",
    "seeded",
    "start_head",
    "trained_state",
]
