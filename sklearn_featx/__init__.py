"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

import lazy_loader

__version__ = "0.1.0"

# `__init__.pyi` lists the public names; each is imported at its first use (Scientific Python's
# SPEC 1), so that feature extraction does not load the training packages.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
