# The public names and their homes: `__init__` reads them here.
from ._extractor import PretrainedFeatureExtractor
from ._finetune import FineTuneClassifier, FineTuneRegressor
from ._plan import Plan, plan
from ._precompute import precompute
from ._stages import StageInfo, backbone_stages, unfreeze_depths
from ._sweep import LayerScore, layer_sweep
from .backbones import backbone_names
from .inspection import TrainingHistoryDisplay, UnfreezeDepthDisplay
from .store import FeatureStore

__version__: str

__all__ = [
    "FeatureStore",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LayerScore",
    "Plan",
    "PretrainedFeatureExtractor",
    "StageInfo",
    "TrainingHistoryDisplay",
    "UnfreezeDepthDisplay",
    "backbone_names",
    "backbone_stages",
    "layer_sweep",
    "plan",
    "precompute",
    "unfreeze_depths",
]
