"""Tasks of a fit for scikit-learn's callbacks (1.9 and later): one for each epoch.

`set_callbacks` registers scikit-learn's callbacks; the parameter `callbacks` has skorch's.
"""

from typing import Any

from skorch.callbacks import Callback

from ..training import FineTuneNet, plain_history, trained_state


class FitTasks:
    """The task of a fit and of its epochs; without effect if scikit-learn has no callbacks.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator that is fitted.
    X, y, sample_weight, groups : object
        Arguments of its `fit`.
    """

    def __init__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any, groups: Any = None
    ) -> None:
        given = {"sample_weight": sample_weight, "groups": groups}
        metadata = {name: value for name, value in given.items() if value is not None} or None
        self._arguments = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._estimator = estimator
        self._root: Any = None
        self._epoch: Any = None

    def begin(self, net: FineTuneNet, n_epochs: int) -> None:
        """Begin the task of the fit, and make the net begin and end the tasks of its epochs.

        Parameters
        ----------
        net : FineTuneNet
            The net, not yet initialized.
        n_epochs : int
            Number of epochs; 0 if the probe is the model.
        """
        if not hasattr(self._estimator, "_init_callback_context"):
            return
        self._root = self._estimator._init_callback_context(max_subtasks=n_epochs)
        self._root.call_on_fit_task_begin(**self._arguments)
        if n_epochs and hasattr(self._estimator, "_skl_callbacks"):
            net.callbacks = [("scikit_learn", EpochTasks(self)), *(net.callbacks or ())]

    def begin_epoch(self) -> None:
        """Begin the task of an epoch."""
        self._epoch = self._root.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._arguments)

    def end_epoch(self, net: FineTuneNet) -> bool:
        """End the task of an epoch; return whether a callback stops the training.

        Parameters
        ----------
        net : FineTuneNet
            The net, after the epoch.
        """
        epoch, self._epoch = self._epoch, None
        learned = lambda: {  # noqa: E731 # computed only if a callback asks for it
            "trained_state_": trained_state(net),
            "history_": plain_history(net.history),
        }
        stop = epoch.call_on_fit_task_end(**self._arguments, reconstruction_attributes=learned)
        return bool(stop)

    def end(self) -> None:
        """End the task of the fit."""
        if self._epoch is not None:
            # Ctrl-C has ended the epoch.
            self._epoch.call_on_fit_task_end(**self._arguments)
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._arguments, reconstruction_attributes={})


class EpochTasks(Callback):
    """Callback of a net that begins and ends the tasks of its epochs.

    Parameters
    ----------
    tasks : FitTasks
        The tasks of the fit.
    """

    def __init__(self, tasks: FitTasks) -> None:
        self.tasks = tasks

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 (skorch's interface)
        """Begin the task of the epoch."""
        self.tasks.begin_epoch()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """End the task of the epoch, and the training if a callback stops it."""
        if self.tasks.end_epoch(net):
            raise KeyboardInterrupt
