"""The trained network: the stages after the split point, and a head.

A frozen stage has three properties: its parameters have no gradient, it stays in eval mode after
`train()` (without dropout or changes of running statistics), and it is in no group of the
optimizer. Gradients flow through a frozen stage to the trained stages before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Self, TypeAlias

import torch
from torch import nn

from .._typing import BagPooling, Pooling
from ._bags import BagParts, pool_bags
from ._frozen_norms import fold_norms, keep_strided_groups_in_float32

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Instance normalization may have running statistics too.
RUNNING_NORMS = (*_BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
BatchNormMode = Literal["frozen", "train"]
# Pooling of what a head reads. Of the stages before the last it is a grid, which tells where a
# thing lies: docs/finetune_study.md.
LAST_POOLING: Pooling = "avg"
EARLIER_POOLING: Pooling = "grid3"
RowsOrParts: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | BagParts


class TailAndHead(nn.Module):
    """The tail of a backbone and a head, with some of the stages frozen.

    Parameters
    ----------
    stages : sequence of torch.nn.Module
        Stages after the split point, in order; each maps the output of the previous one. They are
        not copied.
    head : torch.nn.Module
        Maps the embedding, (n_rows, n_features), to outputs. Always trained.
    trained : sequence of bool
        One for each stage. False: the stage is frozen, and the gradient flows through it (surgical
        fine-tuning, Lee et al. 2023).
    batch_norm : {"frozen", "train"}
        With "frozen", batch normalization in trained stages keeps its pretrained running
        statistics, while its scale and shift are trained. With "train", the statistics adapt, as
        those of the head always do.
    mixed_precision : bool, default=False
        Whether to compute the products of the stages in bfloat16 (torch.autocast; Micikevicius et
        al. 2018). Parameters, their gradients, norms and the head keep their precision.
    pools : (torch.nn.Module, torch.nn.Module), default=None
        Turn the activations of the earlier stages, and those of the last one, into vectors,
        (n_rows, n_features). None: they are vectors already.
    n_read : int, default=1
        Number of stages, counted from the output, whose pooled activations are the embedding.
    bag_poolings : sequence of {"mean", "max", "min", "std"}, default=()
        How the vectors of the images of a bag become one, as in `pool_bags`. With none: one image
        for each row.
    n_channels : int, default=1
        Number of channels of an image that are images of their own: their vectors lie side by side.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        head: nn.Module,
        *,
        trained: Sequence[bool],
        batch_norm: BatchNormMode,
        mixed_precision: bool = False,
        pools: tuple[nn.Module, nn.Module] | None = None,
        n_read: int = 1,
        bag_poolings: Sequence[BagPooling] = (),
        n_channels: int = 1,
    ) -> None:
        super().__init__()
        if len(trained) != len(stages):
            raise ValueError(f"trained has {len(trained)} entries for {len(stages)} stages")
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.trained = tuple(bool(flag) for flag in trained)
        self.batch_norm = batch_norm
        self.mixed_precision = mixed_precision
        self.pools = nn.ModuleList(pools or [nn.Identity(), nn.Identity()])
        self.n_read = n_read
        self.bag_poolings = bag_poolings
        self.n_channels = n_channels
        self._active = self.trained
        fold_norms([s for s, t in zip(self.stages, self.trained, strict=True) if self._stands(t)])
        if mixed_precision:
            keep_strided_groups_in_float32(self.stages)
        self._set_gradients()
        self.train()

    def forward(self, rows: RowsOrParts) -> torch.Tensor:
        """Apply the stages in order, then the head.

        Parameters
        ----------
        rows : torch.Tensor of shape (n_rows, ...), or several
            Activations at the split point. The embedding begins with the others, in order: vectors
            of stages before the split point. Without stages all are vectors.

        Returns
        -------
        outputs : torch.Tensor of shape (n_rows, n_outputs)
            Outputs of the head: logits or regression values.
        """
        embedding = self.embed(rows)
        # The head ignores the caller's autocast too.
        with torch.autocast(embedding.device.type, enabled=False):
            outputs: torch.Tensor = self.head(embedding)
        return outputs

    def embed(self, rows: RowsOrParts) -> torch.Tensor:
        """Apply the stages in order, and pool the activations that the head reads.

        Parameters
        ----------
        rows : torch.Tensor of shape (n_rows, ...), or several
            As in `forward`.

        Returns
        -------
        embedding : torch.Tensor of shape (n_rows, n_features)
            Input of the head, in the order of the stages.
        """
        sizes = None
        if isinstance(rows, BagParts):
            sizes = rows.sizes
            rows = (rows.images, *rows.vectors)
        x, *vectors = [rows] if isinstance(rows, torch.Tensor) else rows
        dtype = self._head_dtype()
        first_read = len(self.stages) - self.n_read
        read = [x.to(dtype)] if not self.stages else []
        read += [vector.to(dtype) for vector in vectors]
        for position, stage in enumerate(self.stages):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed_precision):
                x = stage(x)
            if position >= first_read:
                pool = self.pools[position == len(self.stages) - 1]
                # A copy: the next stage may change x in place, and the gradient of a maximum needs
                # it. In the type of the head: a linear probe is solved in float64.
                activations = x.to(dtype, copy=True)
                with torch.autocast(x.device.type, enabled=False):
                    read.append(self._of_bags(pool(activations), sizes))
        return read[0] if len(read) == 1 else torch.cat(read, dim=1)

    def _of_bags(self, vectors: torch.Tensor, sizes: torch.Tensor | None) -> torch.Tensor:
        """Pool the vectors of images to those of bags."""
        if sizes is None:
            return vectors
        return pool_bags(vectors, sizes, self.bag_poolings, self.n_channels)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; frozen parts stay in eval mode.

        Parameters
        ----------
        mode : bool, default=True
            Whether trained stages and the head are in train mode.

        Returns
        -------
        self : TailAndHead
            The module itself.
        """
        super().train(mode)
        for stage in self.frozen_stages():
            stage.eval()
        if self.batch_norm == "frozen":
            for stage in self.trained_stages():
                freeze_statistics(stage)
        return self

    def frozen_stages(self) -> list[nn.Module]:
        """Return the stages that are not trained now, including those held back.

        Returns
        -------
        stages : list of torch.nn.Module
            In order.
        """
        return [s for s, active in zip(self.stages, self._active, strict=True) if not active]

    def trained_stages(self) -> list[nn.Module]:
        """Return the stages that are trained with the head now.

        Returns
        -------
        stages : list of torch.nn.Module
            In order.
        """
        return [s for s, active in zip(self.stages, self._active, strict=True) if active]

    def hold_back(self, n_stages: int) -> None:
        """Freeze the trained stages that are furthest from the head, until the next call.

        Parameters
        ----------
        n_stages : int
            Number of these stages; 0 unfreezes all.
        """
        positions = [position for position, trained in enumerate(self.trained) if trained]
        active = set(positions[n_stages:])
        self._active = tuple(position in active for position in range(len(self.stages)))
        self._set_gradients()
        self.train(self.training)

    def _stands(self, trained: bool) -> bool:
        """Whether the running statistics of a stage never change."""
        return not trained or self.batch_norm == "frozen"

    def _head_dtype(self) -> torch.dtype:
        parameters = self.head.parameters()
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

    def _set_gradients(self) -> None:
        # Frozen stages come last, so that a parameter shared by both kinds is frozen.
        for part in (*self.trained_stages(), self.head):
            _require_gradients(part.parameters(), True)
        for part in self.frozen_stages():
            _require_gradients(part.parameters(), False)


def _require_gradients(parameters: Iterable[nn.Parameter], required: bool) -> None:
    for parameter in parameters:
        # Integers (quantized weights, tables) have no gradient.
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(required)


def _keeps_running_statistics(module: nn.Module) -> bool:
    return isinstance(module, RUNNING_NORMS) or "FrozenBatchNorm" in type(module).__name__


def freeze_statistics(module: nn.Module) -> None:
    """Put every normalization layer with running statistics into eval mode.

    Parameters
    ----------
    module : torch.nn.Module
        The module, which is changed in place with all modules in it.
    """
    for part in module.modules():
        if _keeps_running_statistics(part):
            part.eval()


def needs_batch_statistics(module: nn.Module) -> bool:
    """Whether the output for a row depends on the other rows of the batch, in the current mode.

    Parameters
    ----------
    module : torch.nn.Module
        The module, in train or eval mode.

    Returns
    -------
    needed : bool
        True if a batch normalization uses the statistics of the batch.
    """
    return any(
        part.training or part.running_mean is None
        for part in module.modules()
        if isinstance(part, _BATCH_NORMS)
    )


class ParameterRecord(NamedTuple):
    """A parameter and its position in the network.

    Parameters
    ----------
    name : str
        Dotted name in the `TailAndHead`.
    parameter : torch.nn.Parameter
        The parameter.
    distance : int
        0 in the head, 1 in the last stage, 2 in the previous one, and so on.
    owner : torch.nn.Module
        The module that has the parameter.
    """

    name: str
    parameter: nn.Parameter
    distance: int
    owner: nn.Module


def parameter_table(module: TailAndHead) -> list[ParameterRecord]:
    """Return all parameters, trained and frozen, each once.

    Parameters
    ----------
    module : TailAndHead
        The network.

    Returns
    -------
    table : list of ParameterRecord
        In the order of `module.named_parameters()`.
    """
    return [
        ParameterRecord(name, parameter, _distance(module, name), _owner(module, name))
        for name, parameter in module.named_parameters()
    ]


def _distance(module: TailAndHead, name: str) -> int:
    part, position, *_ = name.split(".")
    return len(module.stages) - int(position) if part == "stages" else 0


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def named_trained_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that training changes.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Yields
    ------
    name : str
        Dotted name.
    parameter : torch.nn.Parameter
        A parameter that requires a gradient.
    """
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
