"""Plots: scikit-learn's Display objects, which keep what they show and draw it when asked to.

They need matplotlib, the extra ``plot``; it is imported when a plot is drawn.
"""

from ._depth import UnfreezeDepthDisplay
from ._history import TrainingHistoryDisplay

__all__ = [
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
]
