"""Plots and their data: functions return arrays, Display objects store and draw them.

Displays need matplotlib, the extra ``plot``; it is imported when a plot is drawn.
"""

from ._depth import UnfreezeDepthDisplay
from ._embedding_display import EmbeddingDisplay
from ._heat_map_display import HeatMapDisplay
from ._heat_maps import HeatMaps, heat_maps
from ._history import TrainingHistoryDisplay
from ._label_issues import LabelIssues, label_issues
from ._mistakes_display import MistakesDisplay
from ._near_duplicates import NearDuplicates, near_duplicates
from ._neighbors import NearestImages, nearest_images
from ._neighbors_display import NeighborsDisplay
from ._report import report_page

__all__ = [
    "EmbeddingDisplay",
    "HeatMapDisplay",
    "HeatMaps",
    "LabelIssues",
    "MistakesDisplay",
    "NearDuplicates",
    "NearestImages",
    "NeighborsDisplay",
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
    "heat_maps",
    "label_issues",
    "near_duplicates",
    "nearest_images",
    "report_page",
]
