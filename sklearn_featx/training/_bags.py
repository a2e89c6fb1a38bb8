"""Bags: rows of several images, pooled after the stages, so that the loss is that of the bag.

The channels of an image, where each passes alone, are a bag too.

Rows of bags are one object, `BagParts`, since their parts differ in length.
"""

from collections.abc import Callable, Sequence

import torch

from .._typing import BagPooling


class BagParts:
    """Rows of bags.

    Parameters
    ----------
    images : torch.Tensor of shape (n_images, ...)
        Activations of all images, one bag after the other.
    sizes : torch.Tensor of shape (n_bags,), int
        Number of images of each bag, at least 1.
    *vectors : torch.Tensor of shape (n_bags, n_features)
        Further parts of the rows.
    """

    def __init__(self, images: torch.Tensor, sizes: torch.Tensor, *vectors: torch.Tensor) -> None:
        self.images = images
        self.sizes = sizes
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.sizes)

    def each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "BagParts":
        """Apply a function to each part.

        Parameters
        ----------
        function : callable
            From a tensor to a tensor.
        """
        return BagParts(function(self.images), function(self.sizes), *map(function, self.vectors))

    def some(self, bags: slice) -> "BagParts":
        """Return some of the bags.

        Parameters
        ----------
        bags : slice
            Which bags.
        """
        ends = [0, *self.sizes.cumsum(0).tolist()]
        first, *_, last = ends[bags.start : min(bags.stop, len(self)) + 1]
        vectors = (vector[bags] for vector in self.vectors)
        return BagParts(self.images[first:last], self.sizes[bags], *vectors)


def _std(vectors: torch.Tensor) -> torch.Tensor:
    variance = vectors.var(dim=0, unbiased=False)
    # The gradient of a root at 0, for a bag of one image, would be NaN.
    spread = variance > 0
    return torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)


_POOLINGS: dict[BagPooling, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda vectors: vectors.mean(dim=0),
    "max": lambda vectors: vectors.amax(dim=0),
    "min": lambda vectors: vectors.amin(dim=0),
    "std": _std,
}


def pool_bags(
    vectors: torch.Tensor,
    sizes: torch.Tensor,
    poolings: Sequence[BagPooling],
    n_channels: int = 1,
) -> torch.Tensor:
    """Pool the vectors of the images of each bag.

    Parameters
    ----------
    vectors : torch.Tensor of shape (n_images, n_features)
        Vectors of all images, one bag after the other.
    sizes : torch.Tensor of shape (n_bags,), int
        Number of images of each bag, at least 1.
    poolings : sequence of {"mean", "max", "min", "std"}
        Their results lie side by side. With none, a bag is the channels of one image.
    n_channels : int, default=1
        Number of channels of an image, each an image here; their vectors lie side by side.

    Returns
    -------
    pooled : torch.Tensor of shape (n_bags, n_poolings * n_channels * n_features)
        One vector for each bag.

    Examples
    --------
    >>> import torch
    >>> vectors = torch.tensor([[1.0], [3.0], [5.0]])
    >>> pool_bags(vectors, torch.tensor([2, 1]), ["mean", "max"]).tolist()
    [[2.0, 3.0], [5.0, 5.0]]
    """
    vectors = vectors.reshape(-1, n_channels * vectors.shape[1])
    if not poolings:
        return vectors
    bags = torch.split(vectors, (sizes // n_channels).tolist())
    if not bags:
        return vectors.new_empty((0, len(poolings) * vectors.shape[1]))
    return torch.stack([torch.cat([_POOLINGS[name](bag) for name in poolings]) for bag in bags])
