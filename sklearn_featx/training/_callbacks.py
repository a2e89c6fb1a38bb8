"""Callbacks of the net: learning rates of each step, early stopping, gradual unfreezing.

Gradual unfreezing: Howard & Ruder 2018, "Universal language model fine-tuning for text
classification". Stages far from the head, the most general ones, change last and least.
"""

from typing import Any

from skorch.callbacks import Callback, EarlyStopping

from ._net import plain_module
from ._optimizer import schedule_factor


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
    """Callback of the fine-tuners: the trained stages join one by one, over the epochs of a fit.

    The head is trained alone in the first epoch, and one more stage in each epoch after it, the
    last stage first [1]_. `partial_fit`, which has no planned end, trains all of them.

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


class BestWeights(EarlyStopping):
    """Stops when the validation loss no longer falls, and restores the weights of its best epoch.

    Training that goes on without a validation split passes it by.
    """

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the epoch, if it was validated, with the best one."""
        if self.monitor in net.history[-1]:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the best weights, if there was an epoch."""
        if net.history:
            super().on_train_end(net, **kwargs)


class StepSchedule(Callback):
    """Sets every group's learning rate before each step of a fit.

    It applies to `net.fit`, whose length is known. Training that is continued afterwards
    (`continue_fit`) has no planned end: it runs at the base rates.

    Parameters
    ----------
    warmup_fraction : float, default=0.1
        Share of all steps that warm up.
    """

    def __init__(self, warmup_fraction: float = 0.1) -> None:
        self.warmup_fraction = warmup_fraction

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 (skorch's interface)
        """Start from the base rates, those that the optimizer was made with.

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
        """Set the rates of the step to come.

        Parameters
        ----------
        net : FineTuneNet
            The net; `net.planned_steps_` is 0 when the end of the training is open.
        training : bool, default=False
            Whether the batch is one of training.
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
            # torch's own schedulers keep the base rate under this key, too.
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
