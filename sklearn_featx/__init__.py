"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

from ._extractor import PretrainedFeatureExtractor
from ._finetune import FineTuneClassifier, FineTuneRegressor
from ._plan import Plan, plan
from ._precompute import precompute
from ._stages import StageInfo, backbone_stages, unfreeze_depths
from ._sweep import LayerScore, layer_sweep
from .backbones import backbone_names
from .inspection import TrainingHistoryDisplay, UnfreezeDepthDisplay
from .store import FeatureStore

__version__ = "0.1.0"

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
    "__version__",
    "backbone_names",
    "backbone_stages",
    "layer_sweep",
    "plan",
    "precompute",
    "unfreeze_depths",
]
