"""Gradual unfreezing: the head is trained first, then one more stage in each epoch.

Howard & Ruder 2018, "Universal language model fine-tuning for text classification": stages far from
the head, the most general ones, change last and least.
"""

from typing import Any

from skorch.callbacks import Callback

from ._net import plain_module


def first_epoch(rank: int, n_stages: int, n_epochs: int) -> int:
    """Tell in which epoch a stage joins the training.

    The head is alone in epoch 0, and the stage of rank r joins in epoch r. Where there are more
    stages than epochs for that, they join evenly, several at a time, and each is trained in the
    last epoch.

    Parameters
    ----------
    rank : int
        1 for the trained stage that is next to the head, 2 for the one before it, and so on.
    n_stages : int
        Number of trained stages.
    n_epochs : int
        Number of epochs of the fit.

    Returns
    -------
    epoch : int
        From 0.
    """
    return min(rank, rank * n_epochs // (n_stages + 1))


class GradualUnfreezing(Callback):
    """Lets the trained stages join one after the other, over the epochs of a fit.

    Training that goes on without a planned end (`continue_fit`) trains all of them.
    """

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 (skorch's interface)
        """Start at the first epoch.

        Parameters
        ----------
        net : FineTuneNet
            The net.
        **kwargs : dict
            Not used.
        """
        self.epoch_ = 0

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Let the stages of this epoch join.

        Parameters
        ----------
        net : FineTuneNet
            The net; its `planned_` is false where the end of the training is open.
        **kwargs : dict
            Not used.
        """
        if not net.planned_:
            return
        module = plain_module(net)
        n_stages = sum(module.trained)
        joined = [
            first_epoch(rank, n_stages, net.planned_epochs_) <= self.epoch_
            for rank in range(1, n_stages + 1)
        ]
        module.hold_back(n_stages - sum(joined))
        self.epoch_ += 1

    def on_train_end(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Let all of them be trained, also after an early stop.

        Parameters
        ----------
        net : FineTuneNet
            The net.
        **kwargs : dict
            Not used.
        """
        plain_module(net).hold_back(0)
