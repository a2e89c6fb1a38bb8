"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

__version__ = "0.1.0"

__all__ = ["__version__"]
