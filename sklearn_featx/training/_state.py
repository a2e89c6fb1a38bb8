"""State of a trained net: arrays, builtins and predictions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from .._graphs import is_reentrant, plain_new_tensors
from .._messages import shown
from .._parallel import ForkSafeLock
from .._typing import AnyArray
from ..exceptions import WeightsError
from ._dataset import RowSource, read_rows
from ._module import TailAndHead, named_trained_parameters
from ._net import PREDICT_STREAM, FineTuneNet, plain_module

# The lock of all nets whose modules may keep state: nets can share the stages of a backbone.
_alone = ForkSafeLock()


def trained_state(net: FineTuneNet) -> dict[str, AnyArray]:
    """Return the tensors that training changes, without pretrained weights.

    These are the trained parameters, and the buffers of modules in train mode: running statistics
    with `batch_norm="train"`, and the buffers of the head.

    Parameters
    ----------
    net : FineTuneNet
        An initialized net.

    Returns
    -------
    state : dict of str to ndarray
        Read-only copies by dotted name; bfloat16 is converted to float32, which is exact.
    """
    state = {name: _to_array(tensor) for name, tensor in _trained_tensors(plain_module(net))}
    _lock(state)
    return state


def load_trained_state(module: TailAndHead, state: Mapping[str, AnyArray]) -> None:
    """Load the tensors of `trained_state`.

    Parameters
    ----------
    module : TailAndHead
        A module with the same stages, head, `trained` and `batch_norm`, changed in place.
    state : mapping of str to ndarray
        From `trained_state`. Its arrays become read-only: the module would not follow a change.

    Raises
    ------
    WeightsError
        If names or shapes differ. The module is then not changed.
    """
    tensors = dict(_trained_tensors(module))
    _check_same_names(tensors, state)
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != np.shape(state[name]):
            raise WeightsError(
                f"trained_state_: {shown(name)} has shape {np.shape(state[name])}, but the network "
                f"expects {tuple(tensor.shape)}. backbone, head, head_layers or image_size differs "
                "from that of fit: set it again, or fit with warm_start=False."
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))
    _lock(state)


def predict_rows(net: FineTuneNet, rows: RowSource, batch_size: int) -> AnyArray:
    """Run the trained network on rows, in eval mode and without gradient.

    Any number of threads may share a net, since a prediction writes nothing that another one reads.
    Modules of no known library, such as a user's head, may keep state while they compute: their
    threads wait for each other. Torch's global generator does not change.

    Parameters
    ----------
    net : FineTuneNet
        An initialized net that is not being trained.
    rows : array-like of shape (n_rows, ...)
        Activations at the split point, as `RowsDataset` takes them.
    batch_size : int
        Number of rows in a batch.

    Returns
    -------
    outputs : ndarray of shape (n_rows, n_outputs), dtype float32
        Logits or regression values.
    """
    return _run(net, net.infer, rows, batch_size)


def embed_rows(net: FineTuneNet, rows: RowSource, batch_size: int) -> AnyArray:
    """Compute the input of a trained network's head, in the way of `predict_rows`.

    Parameters
    ----------
    net : FineTuneNet
        An initialized net that is not being trained.
    rows : array-like of shape (n_rows, ...)
        Activations at the split point, as `RowsDataset` takes them.
    batch_size : int
        Number of rows in a batch.

    Returns
    -------
    embeddings : ndarray of shape (n_rows, n_features), dtype float32
        Pooled activations of the stages that the head reads.
    """
    module = plain_module(net)
    return _run(net, lambda batch: module.embed(net.on_device(batch)), rows, batch_size)


@plain_new_tensors()
def _run(
    net: FineTuneNet, function: Callable[[Any], torch.Tensor], rows: RowSource, batch_size: int
) -> AnyArray:
    if plain_module(net).training:
        # The mode was changed from outside. It is not restored, which another thread would see.
        net.module_.eval()
    if net.reentrant_ is None:
        net.reentrant_ = is_reentrant(plain_module(net))
    with nullcontext() if net.reentrant_ else _alone:
        return _predicted(net, function, rows, batch_size)


def _predicted(
    net: FineTuneNet, function: Callable[[Any], torch.Tensor], rows: RowSource, batch_size: int
) -> AnyArray:
    if net.predicts_at_random_ is False:
        return _in_batches(function, rows, batch_size)
    draws = net.draws(PREDICT_STREAM)
    with draws.active():
        outputs = _in_batches(function, rows, batch_size)
    if len(rows):
        # A user's network may draw random numbers in eval mode. If not, no lock is needed.
        net.predicts_at_random_ = net.predicts_at_random_ or draws.were_used
    return outputs


def _in_batches(
    function: Callable[[Any], torch.Tensor], rows: RowSource, batch_size: int
) -> AnyArray:
    with torch.inference_mode():
        # Without rows, one empty batch gives the right width.
        batches = [
            function(read_rows(rows, list(range(start, min(start + batch_size, len(rows))))))
            for start in range(0, max(len(rows), 1), batch_size)
        ]
        outputs = torch.cat(batches).cpu()
        return (outputs if outputs.dtype is torch.float64 else outputs.float()).numpy()


def plain_history(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert a skorch history to builtins, which load without skorch.

    Parameters
    ----------
    history : skorch.history.History
        One mapping for each epoch.

    Returns
    -------
    epochs : list of dict
        The same records; other objects than numbers, strings, lists and mappings become strings.
    """
    return [_plain(epoch) for epoch in history]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _trained_tensors(module: TailAndHead) -> Iterator[tuple[str, torch.Tensor]]:
    yield from named_trained_parameters(module)
    persistent = set(module.state_dict())
    with _train_mode(module):
        in_train_mode = [(name, part) for name, part in module.named_modules() if part.training]
    for prefix, part in in_train_mode:
        for name, buffer in part.named_buffers(prefix, recurse=False):
            if name in persistent:
                yield name, buffer


def _lock(state: Mapping[str, AnyArray]) -> None:
    for array in state.values():
        array.flags.writeable = False


def _check_same_names(tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    missing, unexpected = sorted(tensors.keys() - state.keys()), sorted(state.keys() - tensors)
    if missing or unexpected:
        name, problem = (missing[0], "lack") if missing else (unexpected[0], "also hold")
        raise WeightsError(
            f"trained_state_ does not fit the network: the trained weights {problem} "
            f"{shown(name)}. backbone, unfreeze_depth, batch_norm or head differs from that of "
            "fit: set it again, or fit from the start."
        )


def _to_array(tensor: torch.Tensor) -> AnyArray:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.array(tensor.numpy(), order="C")


@contextmanager
def _train_mode(module: nn.Module) -> Iterator[None]:
    """Context manager: a module that no other thread uses is in train mode."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.train()
        yield
    finally:
        for part, training in modes:
            part.training = training
