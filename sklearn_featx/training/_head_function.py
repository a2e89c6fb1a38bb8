"""The head of a trained net as a function of arrays."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from .._typing import AnyArray, FloatArray
from ._net import FineTuneNet, plain_module


class HeadFunction(NamedTuple):
    """The computation of a head.

    Parameters
    ----------
    outputs : callable
        In float64, from rows (n, n_features) to outputs (n, n_outputs).
    mean : ndarray of shape (n_features,) or None
        Mean of the frozen embeddings of the training images, where the head begins with it.
    """

    outputs: Callable[[AnyArray], FloatArray]
    mean: FloatArray | None


def head_function(net: FineTuneNet) -> HeadFunction:
    """Take the head of a net.

    Parameters
    ----------
    net : FineTuneNet
        An initialized net; it is not changed.

    Returns
    -------
    function : HeadFunction
        A copy of the head.
    """
    head = copy.deepcopy(plain_module(net).head).double().cpu().eval()

    def outputs(rows: AnyArray) -> FloatArray:
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float64))
            found: FloatArray = head(inputs).numpy()
        return found

    mean = getattr(next(head.children(), None), "mean", None)
    return HeadFunction(outputs, mean.numpy() if isinstance(mean, torch.Tensor) else None)
