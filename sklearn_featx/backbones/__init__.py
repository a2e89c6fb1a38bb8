"""A name or a module becomes a `Backbone`: ordered stages, recipe, digests.

Imports torch and torchvision; knows nothing of images, stores or training.
"""

from ._backbone import Backbone
from ._pooling import Pool
from ._registry import backbone_names, get_backbone
from ._stage import Stage

__all__ = ["Backbone", "Pool", "Stage", "backbone_names", "get_backbone"]
