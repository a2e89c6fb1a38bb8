"""Plots: Display objects in the style of scikit-learn, which store arrays and draw them.

They need matplotlib, the extra ``plot``; it is imported when a plot is drawn.
"""

from ._depth import UnfreezeDepthDisplay
from ._history import TrainingHistoryDisplay

__all__ = [
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
]
