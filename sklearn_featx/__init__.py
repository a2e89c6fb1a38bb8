"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

from ._extractor import PretrainedFeatureExtractor
from .backbones import backbone_names

__version__ = "0.1.0"

__all__ = ["PretrainedFeatureExtractor", "__version__", "backbone_names"]
