"""Digests of modules and stages: code, settings and tensors."""

import copy
import io
import operator
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._digest import digest, digest_array
from .._graphs import default_device
from ._drawing import draws
from ._naming import Namer
from .cutting._segment import Segment

# Attributes of every module that are no settings: tensors, submodules, hooks, the mode, and a mark
# of `torch.compile`.
_NOT_SETTINGS = frozenset([*vars(nn.Module()), "_is_torch_compile"])
# Private attributes of PyTorch's own layers follow from their settings.
_LAYERS = "torch.nn.modules."
_KERNELS = ("aten", "prim", "prims", "quantized", "torchvision")


class Digest(NamedTuple):
    """The digest of a network or of a part of it.

    Parameters
    ----------
    text : str
        Equal for networks that compute the same.
    unnamed : tuple of str
        Descriptions of objects without a certain digest. If there are any, a different network may
        have the same digest.
    libraries : frozenset of str
        Top-level modules whose code the network runs.
    """

    text: str
    unnamed: tuple[str, ...]
    libraries: frozenset[str]


def digest_module(module: nn.Module) -> Digest:
    """Digest a module's code, settings, parameters and buffers, or a stage's operations.

    Training mode and gradients do not matter.
    """
    return _digest_of(module)


def digest_structure(module: nn.Module) -> str:
    """Digest a module's code and settings, and the tensors that its state does not contain.

    Parameters
    ----------
    module : nn.Module
        Not changed.
    """
    empty = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
    return _digest_of(empty).text


def digest_factory(function: Callable[[], nn.Module]) -> Digest:
    """Digest a function that builds a network, including everything that it reads."""
    # The defaults of new parameters.
    defaults = (torch.get_default_dtype(), default_device())
    return _digest_of((function, defaults), building=True)


def digest_tensor(tensor: torch.Tensor) -> str:
    """Digest a tensor's dtype, shape and values."""
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype is torch.bfloat16:
        return digest("bfloat16", digest_array(plain.view(torch.int16).numpy()))
    return digest_array(plain.numpy())


def _digest_of(value: Any, *, building: bool = False) -> Digest:
    namer = Namer(building=building)
    text = namer.name(value)
    return Digest(text, tuple(dict.fromkeys(namer.unnamed)), frozenset(namer.libraries))


def _tensor(namer: Namer, tensor: torch.Tensor) -> str:
    if type(tensor) not in (torch.Tensor, nn.Parameter, nn.Buffer) or tensor.is_meta:
        return namer.give_up(tensor)
    try:
        return digest_tensor(tensor)
    except (RuntimeError, TypeError, NotImplementedError):
        return _unusual_tensor(namer, tensor)


def _unusual_tensor(namer: Namer, tensor: torch.Tensor) -> str:
    """Digest a tensor without an equivalent in NumPy, by its saved bytes."""
    try:
        file = io.BytesIO()
        torch.save(tensor, file)
        return digest("saved tensor", *_archived(file.getvalue()))
    except Exception:
        # The code of a tensor subclass runs here, which may raise anything.
        return namer.give_up(tensor)


def _module(namer: Namer, module: nn.Module) -> str:
    if isinstance(module, Segment):
        return _graph(namer, module.eval_graph, module)
    hooks = list(_hooks(namer, module))
    if isinstance(module, fx.GraphModule):
        replaced = namer.name(vars(module).get("forward"))
        return digest("graph module", _graph(namer, module.graph, module), replaced, *hooks)
    parts = {**module._parameters, **module._buffers, **module._modules, **_settings(module)}
    named = [digest(key, namer.name(value)) for key, value in parts.items()]
    return digest("module", namer.name(type(module)), *hooks, *named)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are no tensors, submodules or hooks."""
    of_torch = type(module).__module__.startswith(_LAYERS)
    return {
        key: value
        for key, value in sorted(vars(module).items())
        if key not in _NOT_SETTINGS
        and not (of_torch and key.startswith("_") and not callable(value))
    }


def _hooks(namer: Namer, module: nn.Module) -> Iterator[str]:
    kinds: Any = (
        (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, {}),
        (
            module._forward_hooks,
            module._forward_hooks_with_kwargs,
            module._forward_hooks_always_called,
        ),
    )
    for hooks, with_kwargs, always in kinds:
        for key, hook in hooks.items():
            yield digest("hook", key in with_kwargs, key in always, namer.name(hook))


def _graph(namer: Namer, graph: fx.Graph, root: nn.Module) -> str:
    """Digest the operations of a graph, and the values but not the paths of what they read."""
    numbers: dict[fx.Node, int] = {}
    parts = []
    for node in graph.nodes:
        numbers[node] = len(numbers)
        if node.op in ("call_module", "get_attr"):
            target = namer.name(operator.attrgetter(str(node.target))(root))
        elif node.op == "placeholder":
            target = ""
        else:
            target = namer.name(node.target)
        if draws(node):
            namer.unnamed.append(f"{node.name} draws random numbers")
        arguments = [_argument(namer, a, numbers) for a in (node.args, node.kwargs)]
        parts.append(digest(node.op, target, *arguments))
    return digest("graph", *parts)


def _argument(namer: Namer, value: Any, numbers: Mapping[fx.Node, int]) -> str:
    if isinstance(value, fx.Node):
        return digest("node", numbers[value])
    if isinstance(value, slice):
        return _argument(namer, ("slice", value.start, value.stop, value.step), numbers)
    if isinstance(value, Mapping):
        items = (part for pair in value.items() for part in pair)
        return digest("dict", *(_argument(namer, part, numbers) for part in items))
    if isinstance(value, tuple | list):
        # torch.fx has its own list classes; a named tuple is identified by its class.
        kind = "list" if isinstance(value, list) else "tuple"
        named = namer.name(type(value)) if hasattr(value, "_fields") else ""
        return digest(kind, named, *(_argument(namer, item, numbers) for item in value))
    return namer.name(value)


def _script(namer: Namer, script: Any) -> str:
    """Digest a TorchScript module or function by its saved archive."""
    try:
        return digest("script", *_archived(script.save_to_buffer()))
    except RuntimeError:
        # TorchScript's error for objects that it cannot save.
        return namer.give_up(script)


def _archived(data: bytes) -> Iterator[str]:
    """Yield the digests of the files in a PyTorch archive that determine its computation."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {
            # The name of the first folder is that of the file.
            name.partition("/")[2]: _in_order(name, archive.read(name))
            for name in archive.namelist()
            if not name.endswith((".debug_pkl", "serialization_id", "version"))
        }
    # A process numbers the names of classes that it compiles more than once.
    found: dict[bytes, bytes] = {}
    order = ("data.pkl", *sorted(contents))
    for name in order:
        for mark in _MANGLED.findall(contents.get(name, b"")):
            found.setdefault(mark, b"mangle %d" % len(found))
    for name in sorted(contents, key=lambda name: _unmangled(name.encode(), found)):
        yield digest(_unmangled(name.encode(), found), _unmangled(contents[name], found))


def _in_order(name: str, content: bytes) -> bytes:
    """Sort a class's declarations before its methods: its constants are written from a set."""
    if not name.endswith(".py"):
        return content
    classes = []
    for block in re.split(rb"(?m)^(?=class )", content):
        head, first, methods = block.partition(b"\n  def ")
        classes.append(b"\n".join(sorted(head.splitlines())) + first + methods)
    return b"".join(classes)


_MANGLED = re.compile(rb"___torch_mangle_\d+")


def _unmangled(text: bytes, found: Mapping[bytes, bytes]) -> bytes:
    return _MANGLED.sub(lambda match: found.get(match[0], match[0]), text)


def _operator(namer: Namer, found: Any) -> str:
    """Digest an operator of PyTorch by its name; the code of other operators is unknown."""
    if str(found).partition(".")[0] in _KERNELS:
        return namer.library("torch", str(found))
    return namer.give_up(found, f"{found} is an operator of its own")


# The first matching type is used.
Namer.register(torch.jit.ScriptModule, _script)
Namer.register(torch.jit.ScriptFunction, _script)
Namer.register(nn.Module, _module)
Namer.register(torch.Tensor, _tensor)
Namer.register(type(torch.ops.aten.relu), _operator)
Namer.register(type(torch.ops.aten.relu.default), _operator)
