# The public names and the modules that define them; `__init__` reads this file.
from . import exceptions
from .backbones import StageInfo, backbone_names, backbone_stages, unfreeze_depths
from .estimators._extractor import PretrainedFeatureExtractor
from .estimators._finetune_classifier import FineTuneClassifier
from .estimators._finetune_regressor import FineTuneRegressor
from .estimators._image_reader import ImageReader
from .estimators._preprocessing import Preprocessing
from .images import slices, tiles
from .inspection import (
    EmbeddingDisplay,
    HeatMapDisplay,
    HeatMaps,
    LabelIssues,
    MistakesDisplay,
    NearDuplicates,
    NearestImages,
    NeighborsDisplay,
    TrainingHistoryDisplay,
    UnfreezeDepthDisplay,
    heat_maps,
    label_issues,
    near_duplicates,
    nearest_images,
)
from .model_selection._image_groups import image_groups
from .model_selection._layer_sweep import LayerScore, layer_sweep
from .model_selection._plan_search import Plan, plan_search
from .model_selection._precompute import precompute
from .store import FeatureStore
from .training import GradualUnfreezing

__version__: str

__all__ = [
    "EmbeddingDisplay",
    "FeatureStore",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "GradualUnfreezing",
    "HeatMapDisplay",
    "HeatMaps",
    "ImageReader",
    "LabelIssues",
    "LayerScore",
    "MistakesDisplay",
    "NearDuplicates",
    "NearestImages",
    "NeighborsDisplay",
    "Plan",
    "Preprocessing",
    "PretrainedFeatureExtractor",
    "StageInfo",
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
    "backbone_names",
    "backbone_stages",
    "exceptions",
    "heat_maps",
    "image_groups",
    "label_issues",
    "layer_sweep",
    "near_duplicates",
    "nearest_images",
    "plan_search",
    "precompute",
    "slices",
    "tiles",
    "unfreeze_depths",
]
