"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

from ._extractor import PretrainedFeatureExtractor
from ._finetune import FineTuneClassifier, FineTuneRegressor
from .backbones import backbone_names

__version__ = "0.1.0"

__all__ = [
    "FineTuneClassifier",
    "FineTuneRegressor",
    "PretrainedFeatureExtractor",
    "__version__",
    "backbone_names",
]
