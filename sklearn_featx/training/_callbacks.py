"""Callbacks of the net: learning rate schedule, early stopping, gradual unfreezing.

Gradual unfreezing: Howard & Ruder 2018, "Universal language model fine-tuning for text
classification". Stages far from the head, which are the most general ones, are trained last.
"""

from typing import Any

from skorch.callbacks import Callback, EarlyStopping

from ._net import plain_module
from ._optimizer import schedule_factor


def first_epoch(rank: int, n_stages: int, n_epochs: int) -> int:
    """Return the epoch in which a stage joins the training.

    Only the head is trained in epoch 0, and the stage of rank r joins in epoch r. If there are
    fewer epochs than that, several stages join together, evenly, and all are trained in the last
    epoch.

    Parameters
    ----------
    rank : int
        1 for the trained stage next to the head, 2 for the one before it, and so on.
    n_stages : int
        Number of trained stages.
    n_epochs : int
        Number of epochs of the fit.

    Returns
    -------
    epoch : int
        Number of the epoch, from 0.
    """
    return min(rank, rank * n_epochs // (n_stages + 1))


class GradualUnfreezing(Callback):
    """Callback of the fine-tuners: the trained stages join one after the other during a fit.

    Only the head is trained in the first epoch, and one more stage joins in each later epoch, the
    last stage first [1]_. `partial_fit`, which has no planned end, trains all stages.

    References
    ----------
    .. [1] J. Howard, S. Ruder, "Universal language model fine-tuning for text classification",
       ACL 2018.

    Examples
    --------
    >>> from sklearn_featx import FineTuneClassifier, GradualUnfreezing
    >>> clf = FineTuneClassifier(unfreeze_depth=3, callbacks=[GradualUnfreezing()])
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
        """Unfreeze the stages that join in this epoch.

        Parameters
        ----------
        net : FineTuneNet
            The net; its `planned_` is False for continued training.
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
        """Unfreeze all stages, also after an early stop.

        Parameters
        ----------
        net : FineTuneNet
            The net.
        **kwargs : dict
            Not used.
        """
        plain_module(net).hold_back(0)


class BestWeights(EarlyStopping):
    """Early stopping on the validation loss that restores the weights of the best epoch.

    Has no effect on continued training, which has no validation split.
    """

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the epoch with the best one, if it has a validation loss."""
        if self.monitor in net.history[-1]:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the best weights, if there was an epoch."""
        if net.history:
            super().on_train_end(net, **kwargs)


class StepSchedule(Callback):
    """Learning rate schedule that is applied before each step of a fit.

    It applies to `net.fit`, whose length is known. Continued training (`continue_fit`) has no
    planned end and uses the base rates.

    Parameters
    ----------
    warmup_fraction : float, default=0.1
        Share of the steps for the warmup.
    """

    def __init__(self, warmup_fraction: float = 0.1) -> None:
        self.warmup_fraction = warmup_fraction

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 (skorch's interface)
        """Start from the base rates, which the optimizer was created with.

        Parameters
        ----------
        net : FineTuneNet
            The net.
        **kwargs : dict
            Not used.
        """
        self.step_ = 0
        self._set_rates(net, 1.0)

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:  # noqa: ARG002
        """Set the rates of the next step.

        Parameters
        ----------
        net : FineTuneNet
            The net; its `planned_steps_` is 0 for continued training.
        training : bool, default=False
            Whether the batch is used for training.
        **kwargs : dict
            Not used.
        """
        if not training or not net.planned_steps_:
            return
        factor = schedule_factor(
            self.step_, net.planned_steps_, warmup_fraction=self.warmup_fraction
        )
        self._set_rates(net, factor)
        self.step_ += 1

    def _set_rates(self, net: Any, factor: float) -> None:
        for group in net.optimizer_.param_groups:
            # torch's schedulers use the same key for the base rate.
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
