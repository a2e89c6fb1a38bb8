"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

from ._extractor import PretrainedFeatureExtractor
from ._finetune import FineTuneClassifier, FineTuneRegressor
from ._stages import StageInfo, backbone_stages, unfreeze_depths
from .backbones import backbone_names

__version__ = "0.1.0"

__all__ = [
    "FineTuneClassifier",
    "FineTuneRegressor",
    "PretrainedFeatureExtractor",
    "StageInfo",
    "__version__",
    "backbone_names",
    "backbone_stages",
    "unfreeze_depths",
]
