"""The loss of each row, with errors that name the criterion."""

from collections.abc import Callable

import torch

from .._messages import cause, shown


def row_losses(
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    outputs: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Compute one loss for each row, the mean over its outputs.

    Parameters
    ----------
    criterion : callable
        Maps outputs and targets to losses of shape (n_rows,) or (n_rows, n_outputs).
    outputs : torch.Tensor of shape (n_rows, n_outputs)
        Outputs of the network.
    targets : torch.Tensor of shape (n_rows,) or (n_rows, n_outputs)
        Class codes, or numbers.

    Returns
    -------
    losses : torch.Tensor of shape (n_rows,)
        The losses.

    Raises
    ------
    ValueError
        If the criterion fails, or does not return one loss for each row.
    """
    try:
        losses = criterion(outputs, targets)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"net_params: the criterion {shown(criterion)} failed on outputs of shape "
            f"{tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
            f"({cause(error)}). Choose another criterion."
        ) from error
    if losses.ndim == 0 or len(losses) != len(outputs):
        raise ValueError(
            f"net_params: the criterion {shown(criterion)} must return one loss for each row, as "
            f"torch's do with reduction='none'; it returned shape {tuple(losses.shape)}."
        )
    return losses.reshape(len(losses), -1).mean(1)
