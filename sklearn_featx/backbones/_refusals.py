"""Refusals of a backbone: results without a row of its own per image, changes after `fit`."""

import warnings
from typing import Any

import torch

from .._messages import shown, user_level
from ..exceptions import BackboneError, BackboneWarning, WeightsError


def complex_features(backbone: Any, layer: str | int, dtype: Any) -> BackboneError:
    """Return the error about a layer with complex activations: features are real.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    layer : str or int
        Name of the layer, or the number of stages up to it.
    dtype : torch.dtype
        Dtype of its activations.
    """
    name = backbone.stages[layer - 1].layer if isinstance(layer, int) else layer
    return BackboneError(
        f"backbone {shown(backbone.name)}: layer {shown(name)} gives complex numbers ({dtype}), "
        "and features are real. Choose another layer, or let the network end in x.abs() or "
        "torch.view_as_real(x).flatten(-2)."
    )


def warn_if_drawing(backbone: Any) -> None:
    """Warn of a network whose features are other ones in each call.

    Parameters
    ----------
    backbone : Backbone
        The backbone of a user's network.
    """
    drawing = next((what for what in backbone.unnamed if what.endswith("random numbers")), None)
    if drawing is not None:
        warnings.warn(
            f"backbone {shown(backbone.name)}: its {drawing} in inference mode too, so an image "
            "has other features in each call. Use a module, such as nn.Dropout, or pass "
            "training=self.training.",
            BackboneWarning,
            stacklevel=user_level(),
        )


def no_tensor(result: Any) -> BackboneError:
    """Return the error about a network that returns no tensor.

    Parameters
    ----------
    result : object
        The result, or its container in a graph of torch.fx.
    """
    # torch.fx has its own container classes.
    kind = type(result).__name__.removeprefix("immutable_")
    return BackboneError(
        f"backbone: the network returns a {kind}, and a backbone returns one tensor. Wrap it in a "
        "module that returns the wanted one."
    )


def no_rows(backbone: Any, n_images: int, shape: Any) -> BackboneError:
    """Return the error about a network that does not return a row for each image.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    n_images : int
        Number of images that it computed.
    shape : tuple of int
        Shape of its result.
    """
    return BackboneError(
        f"backbone {shown(backbone.name)} returns shape {shown(tuple(shape))} for {n_images} "
        "images: expected a row for each image. Its forward must keep the first axis."
    )


def check_features(backbone: Any, layer: str | int, output: Any) -> None:
    """Raise a `BackboneError` if the result of a layer cannot be features: real columns.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    layer : str or int
        Name of the layer, or the number of stages up to it.
    output : object
        Its result for a batch.
    """
    if not isinstance(output, torch.Tensor):
        raise no_tensor(output)
    if output.ndim < 2:
        raise BackboneError(
            f"backbone {shown(backbone.name)} returns one number for each image, shape "
            "(n_images,), and features are columns. Let its forward return x[:, None]."
        )
    if output.is_complex():
        raise complex_features(backbone, layer, output.dtype)


def mixed_rows(backbone: Any) -> BackboneError:
    """Return the error about a network whose features of an image depend on its batch.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    """
    return BackboneError(
        f"backbone {shown(backbone.name)}: its features of an image depend on the other images of "
        "the batch. Its forward must compute each row alone: x.mean((1, 2, 3), keepdim=True) "
        "instead of x.mean() or x.mean(0), also in a condition."
    )


def check_same(backbone: Any, digest: str) -> None:
    """Raise a `WeightsError` if a backbone has another digest than in `fit`.

    Parameters
    ----------
    backbone : Backbone
        The present backbone.
    digest : str
        The digest of the whole backbone in `fit`.
    """
    if backbone.digest(len(backbone.stages)) != digest:
        raise WeightsError(
            f"backbone {shown(backbone.name)} is not the one that this estimator was fitted on: "
            "its weights, its code or its structure differ. Fit again, with the steps after it, or "
            "restore the old network."
        )
