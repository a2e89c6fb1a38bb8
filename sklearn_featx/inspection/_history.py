"""TrainingHistoryDisplay: the losses of a training by epoch."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._arguments import check_length
from .._messages import shown
from ._axes import axes_for
from ._model import fitted_steps


class TrainingHistoryDisplay:
    """Loss of each epoch of a fine-tuning, on training and on validation images.

    Use `from_estimator` to make one.

    Parameters
    ----------
    train_loss : sequence of float
        Mean loss over the training rows of each epoch, while the network changed.
    valid_loss : sequence of float or None, default=None
        Loss on the rows that early stopping has set aside, at the end of each epoch; NaN where
        there was none. None: no rows were set aside.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the plot.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        The curves.

    See Also
    --------
    UnfreezeDepthDisplay : Scores of the depths of a search.

    Examples
    --------
    >>> from sklearn_featx import TrainingHistoryDisplay
    >>> display = TrainingHistoryDisplay([1.2, 0.7, 0.5], [1.1, 0.8, 0.9])
    >>> display.best_epoch
    2
    """

    def __init__(
        self, train_loss: Sequence[float], valid_loss: Sequence[float] | None = None
    ) -> None:
        self.train_loss = train_loss
        self.valid_loss = valid_loss

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the history of a fitted estimator.

        Parameters
        ----------
        estimator : FineTuneClassifier, FineTuneRegressor, Pipeline or search
            Fitted; of a pipeline, its last step; of a search, its best estimator.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        display : TrainingHistoryDisplay
            The plot and its data.

        Raises
        ------
        TypeError
            If the estimator is no fine-tuner.
        ValueError
            If no epoch was trained.
        """
        tuner = fitted_steps(estimator)[-1:]
        if not (tuner and hasattr(tuner[0], "unfreeze_depth")):
            raise TypeError(
                f"estimator={shown(estimator)}: expected a fitted fine-tuner, a pipeline that ends "
                "in one, or a search over one."
            )
        check_is_fitted(tuner[0], "history_")
        history = tuner[0].history_
        if not history:
            raise ValueError(
                "there is no history to plot: at unfreeze_depth=0 the linear probe is the model, "
                "solved without epochs."
            )
        valid = [epoch.get("valid_loss", np.nan) for epoch in history]
        train = [epoch["train_loss"] for epoch in history]
        return cls(train, None if np.isnan(valid).all() else valid).plot(ax=ax)

    @property
    def best_epoch(self) -> int | None:
        """Number, from 1, of the epoch with the lowest validation loss; None without one."""
        return None if self.valid_loss is None else int(np.nanargmin(self.valid_loss)) + 1

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the losses.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        self : TrainingHistoryDisplay
            The display.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        if self.valid_loss is not None:
            check_length(self.valid_loss, "valid_loss", self.train_loss, "train_loss", "epoch")
        ax = axes_for(ax, "TrainingHistoryDisplay.plot")
        epochs = np.arange(1, len(self.train_loss) + 1)
        self.lines_ = ax.plot(epochs, self.train_loss, marker=".", label="training")
        if self.valid_loss is not None:
            losses = np.asarray(self.valid_loss, dtype=float)
            self.lines_ += ax.plot(epochs, losses, marker=".", label="validation")
            best = self.best_epoch
            assert best is not None
            ax.plot(
                best, losses[best - 1], "o", color=self.lines_[1].get_color(), fillstyle="none",
                markersize=10, label=f"best, epoch {best}",
            )  # fmt: skip
        ax.set(xlabel="Epoch", ylabel="Loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
