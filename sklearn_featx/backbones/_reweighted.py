"""A backbone with other weights in some of its stages."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from .._typing import AnyArray
from ._backbone import Backbone


def with_weights(backbone: Backbone, weights: Mapping[int, Mapping[str, AnyArray]]) -> Backbone:
    """Return a copy of a backbone with other weights.

    Parameters
    ----------
    backbone : Backbone
        Not changed.
    weights : mapping of int to mapping of str to ndarray
        Parameters and buffers by number of the stage, from 0, and name in it.

    Returns
    -------
    changed : Backbone
        Its digests are of the new weights.
    """
    network = replace(backbone.network, module=copy.deepcopy(backbone.network.module))
    stages = Backbone(network, backbone.granularity).stages
    with torch.no_grad():
        for number, values in weights.items():
            stage = stages[number].module
            tensors = dict(stage.named_parameters()) | dict(stage.named_buffers())
            for name, array in values.items():
                tensors[name].copy_(torch.from_numpy(np.array(array)))
    # A second backbone: the first may have kept digests of the old weights when it was built.
    return Backbone(network, backbone.granularity)
