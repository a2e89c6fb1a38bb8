"""Backbones: pretrained networks as ordered stages, with their preprocessing and digests.

The package imports torch, and torchvision only when one of its networks is asked for. It is
independent of images, stores and training.
"""

from ._backbone import Backbone
from ._classifier import warn_of_classifier
from ._digests import Digest, digest_structure
from ._feature_map import FeatureMap, find_feature_map
from ._functions import FunctionDigest, digest_function
from ._listing import StageInfo, backbone_stages, unfreeze_depths
from ._refusals import check_same, complex_features, no_rows
from ._registry import backbone_names, get_backbone
from ._reweighted import with_weights
from .cutting._input_channels import reads_pictures

__all__ = [
    "Backbone",
    "Digest",
    "FeatureMap",
    "FunctionDigest",
    "StageInfo",
    "backbone_names",
    "backbone_stages",
    "check_same",
    "complex_features",
    "digest_function",
    "digest_structure",
    "find_feature_map",
    "get_backbone",
    "no_rows",
    "reads_pictures",
    "unfreeze_depths",
    "warn_of_classifier",
    "with_weights",
]
