"""Backbone: an ordered chain of frozen stages, cut from a network."""

import copy
import functools
import itertools
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn

from .._digest import digest
from .._messages import cause, listed, short, shown, silenced
from .._typing import Granularity, Pooling, UnfreezeDepth
from ..exceptions import BackboneError, CutWarning, FeatxError, UnknownLayerError, WeightsError
from ._digests import Digest, digest_module
from ._libraries import versions
from ._network import Grouping, Network
from ._normalize import Normalize
from ._pooling import Pool
from ._refusals import check_features, mixed_rows, no_rows, warn_if_drawing
from ._stage import Cost, LayerError, Stage, StageTaps, dry_run, mixes_images
from .cutting._chain import Chain, adopt_unused, cut
from .cutting._constants import differing_constant
from .cutting._end_names import end_names
from .cutting._granularity import by_first_use, named_ends, stage_ends, unknown_layer
from .cutting._sequence import stages_by_order
from .cutting._tracing import Trace, UntraceableError, check_followed, trace

# With one row, some networks drop the batch axis, and BatchNorm in training mode fails.
_DRY_ROWS = 2


class Backbone:
    """A frozen network as an ordered chain of stages.

    Parameters
    ----------
    network : Network
        The network with its metadata.
    granularity : {"stage", "block"} or list of str, default="stage"
        The size of a stage.

    Attributes
    ----------
    name : str
        Name of the backbone.
    preprocess : Preprocess
        The preprocessing that the weights were trained with.
    stages : tuple of Stage
        The stages from input to output. Each parameter of the network belongs to one of them.
    """

    def __init__(self, network: Network, granularity: Granularity = "stage") -> None:
        self.network = network
        self.name = network.name
        self.preprocess = network.preprocess
        self.granularity = granularity
        self._known_shapes: dict[object, list[tuple[int, ...]]] = {}
        self._convolves_1d = any(isinstance(m, nn.Conv1d) for m in network.module.modules())
        # Filled by `find_feature_map`.
        self._known_maps: dict[object, Any] = {}
        self._chains = self._trace()
        self.stages = tuple(self._cut())
        if network.is_custom:
            # Before it computes: a user's forward may keep state, such as a count of its calls.
            self.digest(len(self.stages))
            warn_if_drawing(self)

    def trained_stages(self, unfreeze_depth: UnfreezeDepth) -> range:
        """Return the positions, counted from the input, of the stages that a depth trains.

        Parameters
        ----------
        unfreeze_depth : int, "all" or (int, int)
            Number of trained stages, counted from the output; or the first and the last depth of
            the trained stages, where 1 is the last stage.

        Returns
        -------
        trained : range
            Positions of the trained stages; the stages before ``trained.start`` are the trunk.

        Raises
        ------
        UnknownLayerError
            If the backbone has fewer stages.
        """
        n_stages = len(self.stages)
        if isinstance(unfreeze_depth, tuple | list):
            first, last = self._checked_block(unfreeze_depth)
            return range(n_stages - last, n_stages - first + 1)
        depth = n_stages if unfreeze_depth == "all" else unfreeze_depth
        if not 0 <= depth <= n_stages:
            raise UnknownLayerError(
                f"unfreeze_depth={shown(unfreeze_depth)}: there are {n_stages} stages. "
                f"{self._list_of_stages()}"
            )
        return range(n_stages - depth, n_stages)

    def _checked_block(self, depths: Sequence[Any]) -> tuple[int, int]:
        n_stages = len(self.stages)
        whole = len(depths) == 2 and all(isinstance(depth, Integral) for depth in depths)
        if not (whole and 1 <= depths[0] <= depths[1] <= n_stages):
            raise UnknownLayerError(
                f"unfreeze_depth={shown(depths)}: a block of stages is (first, last), depths "
                f"counted from the output, with 1 <= first <= last <= {n_stages}. "
                f"{self._list_of_stages()}"
            )
        return int(depths[0]), int(depths[1])

    def normalize(self, *, float_levels: bool = False) -> Normalize:
        """Return the module that converts preprocessed pixels to the input of the first stage.

        Parameters
        ----------
        float_levels : bool, default=False
            As in `Normalize`.
        """
        return Normalize(self.preprocess.mean, self.preprocess.std, float_levels=float_levels)

    def tail(self, split: int) -> list[nn.Module]:
        """Return copies of the stages from `split` on, which support training.

        Training the copies does not change the backbone.

        Raises
        ------
        WeightsError
            If the weights of these stages contain NaN.
        """
        for stage in self.stages[split:]:
            self._check_gaps(stage.module)
        return [copy.deepcopy(stage.module) for stage in self.stages[split:]]

    def tapped(self, layers: Sequence[str | int], *, float_levels: bool = False) -> nn.Module:
        """Return the normalization and the part of the network that computes the given layers.

        Parameters
        ----------
        layers : sequence of str or int
            Names of modules, operations or stages, or numbers of stages counted from the input.
        float_levels : bool, default=False
            As in `Normalize`.

        Returns
        -------
        module : nn.Module
            Returns a tuple with the activations of each layer. It computes nothing after the
            deepest layer and shares the network's parameters.

        Raises
        ------
        UnknownLayerError
            If a name is unknown; the message lists the nearest names.
        WeightsError
            If the weights that the layers need contain NaN.
        """
        if self._chains is None:
            part: nn.Module = StageTaps(self.stages, [self._stage_index(name) for name in layers])
        else:
            graph = self._chains[0].tapped([self._position(layer) for layer in layers])
            part = torch.fx.GraphModule(self.network.module, graph)
        self._check_gaps(part)
        return nn.Sequential(self.normalize(float_levels=float_levels), part)

    def pool(self, pooling: Pooling | None) -> Pool:
        """Return the pooling for the layout of this network's activations."""
        return Pool(
            pooling,
            channels_last=self.network.channels_last,
            tokens=not self._convolves_1d,
            prefix_tokens=self.network.prefix_tokens,
        )

    def shapes(self, module: nn.Module, input_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the output shapes of a module of this backbone for one row, without computing it.

        Parameters
        ----------
        module : nn.Module
            A stage, a trunk, or the result of `tapped`.
        input_shape : sequence of int
            Shape of one row, without the batch axis.

        Raises
        ------
        BackboneError
            If the network does not accept rows of this shape.
        """
        return [tuple(output.shape[1:]) for output in self._dry_run(module, input_shape)]

    def _dry_run(self, module: nn.Module, input_shape: Sequence[int]) -> Sequence[torch.Tensor]:
        try:
            outputs = dry_run(module, (_DRY_ROWS, *input_shape))
        except FeatxError:
            raise
        except Exception as error:
            # Networks raise errors of any type for wrong sizes.
            raise BackboneError(
                f"backbone {shown(self.name)} cannot take {_in_words(input_shape)}: "
                f"{_cause_and_place(error)}. {self._other_type() or self._fitting_size()}"
            ) from error
        for output in outputs:
            if output.shape[:1] != (_DRY_ROWS,):
                raise no_rows(self, _DRY_ROWS, output.shape)
        return outputs

    def _other_type(self) -> str:
        """Say how a network whose parameters are all of another type than images is passed."""
        dtypes = {p.dtype for p in self.network.module.parameters() if p.is_floating_point()}
        if not dtypes or torch.float32 in dtypes:
            return ""
        return f"Its parameters are {next(iter(dtypes))}: pass network.float(), and set precision."

    def _fitting_size(self) -> str:
        size = self.preprocess.output_size
        if size is None:
            return "Check image_size and the reader's image_shape."
        made_for = _in_words((self.preprocess.channels, *size))
        return f"It was made for {made_for}: check image_size and preprocessing."

    def layer_before(self, layer: str) -> str | None:
        """Return the name of the layer before a layer; None if the network is not traced.

        Parameters
        ----------
        layer : str
            Name of a module.
        """
        if self._chains is None:
            return None
        positions = self._chains[0].named_positions()
        before = {k: v for k, v in positions.items() if v < positions.get(layer, 0)}
        return max(before, key=lambda name: before[name], default=None)

    def layer_shapes(
        self, layers: Sequence[str | int], input_shape: Sequence[int]
    ) -> list[tuple[int, ...]]:
        """Return the shapes of the layers' activations for one row; the results are stored.

        Parameters
        ----------
        layers : sequence of str or int
            As for `tapped`.
        input_shape : sequence of int
            Shape of the network's input for one row.

        Raises
        ------
        BackboneError
            If the network does not accept rows of this shape, or mixes them, or a layer is complex.
        """
        question = (tuple(layers), tuple(input_shape))
        if question not in self._known_shapes:
            part = self.tapped(layers)
            outputs = self._dry_run(part, input_shape)
            branches = self._chains is None
            if self.network.is_custom and mixes_images(part, input_shape, branches=branches):
                raise mixed_rows(self)
            for layer, output in zip(layers, outputs, strict=True):
                check_features(self, layer, output)
            self._known_shapes[question] = shapes = [tuple(output.shape[1:]) for output in outputs]
            for layer, shape in zip(layers, shapes, strict=True):
                self._known_shapes[(layer,), tuple(input_shape)] = [shape]
        return self._known_shapes[question]

    def costs(self, input_shape: Sequence[int]) -> list[Cost]:
        """Return the output shape and the operations of each stage for one row.

        Parameters
        ----------
        input_shape : sequence of int
            Shape of the first stage's input, without the batch axis.

        Raises
        ------
        BackboneError
            If the network does not accept rows of this shape.
        """
        # Imported here, because the import is slow and rarely needed.
        with silenced("torch.utils.flop_counter"):
            from torch.utils.flop_counter import FlopCounterMode

        costs, shape = [], tuple(input_shape)
        for stage in self.stages:
            with FlopCounterMode(display=False) as counter:
                (shape,) = self.shapes(stage.module, shape)
            costs.append(Cost(shape, counter.get_total_flops() // _DRY_ROWS))
        return costs

    def digest(self, layer: str | int) -> str:
        """Return the digest of the computation from a preprocessed row to a layer.

        Parameters
        ----------
        layer : str or int
            As for `tapped`.
        """
        stages = [stage.text for stage in self._stage_digests]
        if isinstance(layer, str) and self._chains is None:
            layer = self._stage_index(layer) + 1
        if isinstance(layer, str):
            # A layer at the end of a stage has the same rows as the stage.
            layer = self._stage_ends.get(self._position(layer), layer)
        if isinstance(layer, int):
            return digest(digest("chain-2"), *stages[:layer])
        # Not the layer's name: another network may have the same operations under other names.
        return digest(digest("layer-2", self._position(layer)), *stages)

    @functools.cached_property
    def _stage_ends(self) -> dict[int, int]:
        """Number of the stage that ends at each position of the trace."""
        return {self._position(k): k for k in range(1, len(self.stages) + 1)}

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Descriptions of objects without a certain digest; usually empty."""
        return tuple(what for stage in self._stage_digests for what in stage.unnamed)

    @property
    def packages(self) -> list[str]:
        """Names and versions of the packages that define the network, except PyTorch."""
        return versions(self._package_names)

    @functools.cached_property
    def _package_names(self) -> set[str]:
        used = [type(module).__module__ for module in self.network.module.modules()]
        if self._chains is not None:
            nodes = self._chains[0].trace.graph.nodes
            used += [getattr(node.target, "__module__", None) or "" for node in nodes]
        read = (stage.libraries for stage in self._stage_digests)
        return {name.partition(".")[0] for name in used}.union(*read) - {"torch"}

    @functools.cached_property
    def _stage_digests(self) -> list[Digest]:
        return [digest_module(stage.module) for stage in self.stages]

    def _check_gaps(self, part: nn.Module) -> None:
        """Raise an error if weights are NaN: some files contain only those of the convolutions."""
        name = next((self._gaps[id(p)] for p in part.parameters() if id(p) in self._gaps), None)
        if name is not None:
            raise WeightsError(
                f"backbone {self.name!r}: the weights ({self.network.weights}) hold NaN for "
                f"{name!r}. Use other weights, or {self._layers_without_gaps()}."
            )

    @functools.cached_property
    def _gaps(self) -> dict[int, str]:
        """Names of the parameters with NaN, by id. Infinite values may be masks."""
        return {
            id(parameter): name
            for name, parameter in self.network.module.named_parameters()
            if not parameter.is_meta and parameter.isnan().any()
        }

    def _layers_without_gaps(self) -> str:
        """Describe the layers that do not need parameters with NaN."""
        whole = itertools.takewhile(
            lambda stage: not any(id(p) in self._gaps for p in stage.module.parameters()),
            self.stages,
        )
        names = [stage.layer for stage in whole]
        return f"a layer up to {names[-1]!r}" if names else "a layer before it"

    def _trace(self) -> tuple[Chain, Chain] | None:
        """Return the chains of the inference and the training mode; None if a trace fails."""
        network = self.network
        try:
            traces = [self._traced(train=train) for train in (False, True)]
            check_followed(network.module, traces[0])
        except UntraceableError as error:
            warnings.warn(
                f"backbone {self.name!r} cannot be traced ({error}). It is cut at its "
                "parts if they run one after the other; if not, it is one stage.",
                CutWarning,
                stacklevel=2,
            )
            return None
        self._refuse_changing_constants(traces[0])
        return Chain(network.module, traces[0]), Chain(network.module, traces[1])

    def _traced(self, *, train: bool) -> Trace:
        return trace(
            self.network.module,
            train=train,
            leaf_modules=self.network.leaf_modules,
            autowrap_functions=self.network.autowrap_functions,
        )

    def _refuse_changing_constants(self, found: Trace) -> None:
        """Refuse a user's forward that draws values without its input, or reads the time."""
        if not self.network.is_custom:
            return
        module = self.network.module
        before = set(vars(module))
        name = differing_constant(module, found, self._traced(train=False))
        for added in set(vars(module)) - before:
            delattr(module, added)
        if name is not None:
            raise BackboneError(
                f"backbone {shown(self.name)}: its forward has another value in each call, at "
                f"{shown(name)}: it draws random numbers or reads the time, so an image has no one "
                "row. Draw the value once, in __init__, and keep it by register_buffer."
            )

    def _cut(self) -> list[Stage]:
        if self._chains is None:
            return [Stage(name, module, name) for name, module in stages_by_order(self.network)]
        ends = self._common_ends()
        eval_chain, train_chain = self._chains
        last = (len(eval_chain.nodes) - 1, len(train_chain.nodes) - 1)
        segments = cut(eval_chain, train_chain, [*ends.values(), last])
        adopt_unused(self.network.module, segments)
        names = self._stage_names(list(ends))
        layers = end_names(eval_chain, names, [*(stop for stop, _ in ends.values()), last[0]])
        parts = zip(names, segments, layers, strict=True)
        return [Stage(name, part.eval(), layer) for name, part, layer in parts]

    def _common_ends(self) -> dict[str, tuple[int, int]]:
        """Return the ends that both modes have, with their positions in each mode."""
        assert self._chains is not None
        in_eval, in_train = (self._ends(chain) for chain in self._chains)
        return {name: (in_eval[name], in_train[name]) for name in in_eval if name in in_train}

    def _ends(self, chain: Chain) -> dict[str, int]:
        if isinstance(self.granularity, list):
            return named_ends(chain, self.granularity)
        return stage_ends(chain, self._grouping)

    @property
    def _grouping(self) -> Grouping:
        return self.network.blocks if self.granularity == "block" else self.network.stages

    def _stage_names(self, ends: Sequence[str]) -> list[str]:
        """Name each stage by the modules that start in it, or by the user's names."""
        assert self._chains is not None
        if isinstance(self.granularity, list):
            rest = [name for name in self.granularity if name not in ends]
            return [*ends, *(rest or ["output"])]
        order = by_first_use(self._chains[0], self._grouping)
        starts = [0, *(order.index(end) for end in ends), len(order)]
        joined = ["+".join(order[a:b]) for a, b in itertools.pairwise(starts)]
        # A network that is a single layer or has no weights has no module path.
        return [name or "network" for name in joined]

    def _position(self, layer: str | int) -> int:
        """Return the end of a module, an operation or a stage in the inference chain."""
        assert self._chains is not None
        chain = self._chains[0]
        stops = [*(stop for stop, _ in self._common_ends().values()), len(chain.nodes) - 1]
        if isinstance(layer, int):
            return stops[layer - 1]
        by_stage = dict(zip((stage.name for stage in self.stages), stops, strict=True))
        # A stage may end after its module, with the following pooling: the module has precedence.
        positions = by_stage | chain.named_positions()
        if layer not in positions:
            raise UnknownLayerError(unknown_layer(layer, positions))
        if not self.network.is_custom and self._is_removed(layer):
            raise UnknownLayerError(
                f"layer: {shown(layer)} was the classification head, which is removed. layer=None "
                "returns what enters it."
            )
        return positions[layer]

    def _is_removed(self, layer: str) -> bool:
        # The head of the libraries' models is their last module.
        modules = dict(self.network.module.named_modules())
        is_last = layer == list(modules)[-1]
        return is_last and isinstance(modules[layer], nn.Identity)

    def _stage_index(self, layer: str | int) -> int:
        names = [stage.name for stage in self.stages]
        if isinstance(layer, int):
            return layer - 1
        if layer not in names:
            raise UnknownLayerError(unknown_layer(layer, names))
        return names.index(layer)

    def _list_of_stages(self) -> str:
        names = listed(stage.name for stage in self.stages)
        return f"From input to output: {names}."


def _in_words(shape: Sequence[int]) -> str:
    """Describe one row of a network's input."""
    if len(shape) != 3:
        return f"rows of shape {short(str(tuple(shape)))}"
    channels, height, width = shape
    return f"{height} x {width} pixels of {channels} channel{'s' if channels != 1 else ''}"


def _cause_and_place(error: Exception) -> str:
    """Describe an error of a network, with the failing layer if it is known."""
    if isinstance(error, LayerError) and error.__cause__ is not None:
        return f"{error.place}, {cause(error.__cause__)}"
    return cause(error)
