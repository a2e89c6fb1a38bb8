"""Plots and their data: functions return arrays, Display objects store and draw them.

Displays need matplotlib, the extra ``plot``; it is imported when a plot is drawn.
"""

from ._depth import UnfreezeDepthDisplay
from ._heat_map_display import HeatMapDisplay
from ._heat_maps import HeatMaps, heat_maps
from ._history import TrainingHistoryDisplay
from ._neighbors import NearestImages, nearest_images
from ._neighbors_display import NeighborsDisplay

__all__ = [
    "HeatMapDisplay",
    "HeatMaps",
    "NearestImages",
    "NeighborsDisplay",
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
    "heat_maps",
    "nearest_images",
]
