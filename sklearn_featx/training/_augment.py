"""Augmentation: functions from an image and a seed to a view.

Transforms of torchvision draw from torch's global generator. Each call seeds it under a lock and
restores its state afterwards, so a view depends only on the image and the seed.

Functions import torchvision themselves, since its import takes a second.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from .._digest import digest, digest_array
from .._graphs import plain_new_tensors
from .._messages import cause, shown
from .._typing import Levels
from ..exceptions import ImageError
from ._random import seeded

AugmentSpec: TypeAlias = Literal["light", "strong"] | Callable[[Any], Any]

# The minimum share of the area that a crop keeps, and the range of its aspect ratio, as in Szegedy
# et al. 2015, "Going deeper with convolutions", whose minimum of 8 % suits millions of images.
_LIGHT_AREA, _STRONG_AREA = 0.7, 0.25
_RATIO = (3 / 4, 4 / 3)


class Augment:
    """A transform that makes views.

    Parameters
    ----------
    transform : callable
        Maps an image, uint8 (C, H, W), to an image of the same dtype and any size.
    exact : bool, default=False
        Whether it also accepts float32, for images of more than 8 bits; otherwise they are rounded.
    crops : bool, default=False
        Whether the views of one image have different sizes.

    Attributes
    ----------
    digest : str or None
        Digest of the transform; None if it is unknown.
    """

    def __init__(
        self, transform: Callable[[Any], Any], *, exact: bool = False, crops: bool = False
    ) -> None:
        import torchvision

        self.crops = crops
        self._transform = transform
        self._exact = exact
        described = _describe(transform)
        versions = (torch.__version__, torchvision.__version__)
        self.digest = (
            None if described is None else digest("augment-2", *versions, exact, described)
        )

    @plain_new_tensors()
    def __call__(self, pixels: Levels, seed: int) -> Levels:
        """Return one view.

        Parameters
        ----------
        pixels : ndarray of shape (H, W, C), dtype uint8 or float32
            The image, from 0 to 255.
        seed : int
            Seed of the view.
        """
        if not self._exact and pixels.dtype != np.uint8:
            pixels = np.rint(pixels).astype(np.uint8)
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        with seeded(seed), torch.no_grad():
            view = self._called(image)
        return _to_pixels(view, pixels.dtype)

    def _called(self, image: torch.Tensor) -> Any:
        try:
            return self._transform(image)
        except ImageError:
            raise
        except Exception as error:
            # The user's transform runs here, which may raise anything.
            raise ValueError(
                f"augment={shown(self._transform)} raised {cause(error)}. It is called with a "
                "uint8 tensor (channels, height, width) and returns one."
            ) from error


def make_augment(augment: AugmentSpec) -> Augment:
    """Return the transform of a value of the parameter `augment`.

    Parameters
    ----------
    augment : {"light", "strong"} or callable
        "light": a crop of 70 to 100 % of the area, mirrored with probability 0.5. "strong": a crop
        of 25 to 100 %, mirrored with probability 0.5, then one operation of TrivialAugmentWide
        (Müller & Hutter 2021). Or a transform of torchvision's v2, or any function from a uint8
        tensor (C, H, W) to such a tensor.

    Returns
    -------
    augment : Augment
        The transform.
    """
    from torchvision.transforms import v2

    if augment == "light":
        mirrored = v2.Compose([_Crop(_LIGHT_AREA), v2.RandomHorizontalFlip()])
        return Augment(mirrored, exact=True, crops=True)
    if augment == "strong":
        steps = [_Crop(_STRONG_AREA), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()]
        return Augment(v2.Compose(steps), crops=True)
    assert callable(augment)
    return Augment(augment)


class _Crop(nn.Module):
    """A random crop at the image's own resolution; the preprocessing resizes it."""

    def __init__(self, least_area: float) -> None:
        super().__init__()
        self.least_area = least_area

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms import RandomResizedCrop, functional

        box = RandomResizedCrop.get_params(image, [self.least_area, 1.0], list(_RATIO))
        cropped: torch.Tensor = functional.crop(image, *box)
        return cropped


def _to_pixels(view: Any, dtype: np.dtype[Any]) -> Levels:
    # A transform may also return a Pillow image.
    array = view.numpy() if isinstance(view, torch.Tensor) else np.asarray(view)
    if isinstance(view, torch.Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != dtype or array.ndim not in (2, 3) or not array.size:
        raise ValueError(
            "augment must return an image of type uint8, from 0 to 255, like the one it gets; got "
            f"{array.dtype} of shape {array.shape}. Leave conversion to float, normalization and "
            "resizing to the preprocessing"
        )
    return np.ascontiguousarray(array if array.ndim == 3 else array[:, :, None])


def _describe(value: Any) -> str | None:
    """Describe a transform of torchvision with all its settings; None if an object is unknown.

    `repr` is not sufficient, because it abbreviates long values.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, torch.Tensor):
        return digest_array(value.detach().cpu().numpy())
    if isinstance(value, list | tuple):
        return _describe_all(value)
    if isinstance(value, set | frozenset):
        return _describe_all(sorted(value, key=repr))
    if isinstance(value, Mapping):
        return _describe_all([part for pair in value.items() for part in pair])
    if isinstance(value, type | torch.dtype):
        return repr(value)
    if isinstance(value, nn.Module) and _is_known(type(value)):
        inside = _describe(vars(value))
        return None if inside is None else f"{type(value).__qualname__}{inside}"
    return None


def _describe_all(values: Any) -> str | None:
    described = [_describe(value) for value in values]
    known = [part for part in described if part is not None]
    return f"({', '.join(known)})" if len(known) == len(described) else None


def _is_known(kind: type) -> bool:
    """Whether a class is of torchvision, torch or this package."""
    return kind.__module__.split(".")[0] in ("torchvision", "torch") or kind is _Crop
