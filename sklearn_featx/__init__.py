"""Pretrained networks as scikit-learn transformers and fine-tunable estimators."""

import lazy_loader

# Each name is imported when it is first used, by the table in `__init__.pyi`: who extracts features
# need not wait for what trains networks (Scientific Python's SPEC 1).
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
