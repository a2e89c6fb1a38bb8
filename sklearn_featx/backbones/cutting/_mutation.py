"""In-place operations: their recognition, and whether they change a graph's input."""

from torch import fx, nn

# Operations whose result may share memory with their input.
_VIEWS = {
    "chunk", "contiguous", "expand", "flatten", "getitem", "movedim", "narrow", "permute",
    "reshape", "split", "squeeze", "transpose", "unbind", "unflatten", "unsqueeze", "view",
}  # fmt: skip
_VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout)


def works_in_place(node: fx.Node, network: nn.Module) -> bool:
    """Whether an operation changes the value of its first argument."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = _name(node)
    spelled = name.endswith("_") and not name.endswith("__")
    operator = getattr(node.target, "__module__", "") == "_operator" and name.startswith("i")
    augmented = operator and name not in ("invert", "inv", "index", "is_", "is_not", "indexOf")
    return spelled or augmented or node.kwargs.get("inplace") is True or "out" in node.kwargs


def changes(source: fx.Node, network: nn.Module) -> bool:
    """Whether an operation changes a value, or a view of it, in place."""
    return first_change(source, network) is not None


def first_change(source: fx.Node, network: nn.Module) -> fx.Node | None:
    """Return an operation that changes a value, or a view of it, in place, or None."""
    for user in source.users:
        first = user.args[0] if user.args else None
        if user.kwargs.get("out") is source or (first is source and works_in_place(user, network)):
            return user
        if _is_view(user, network) and (found := first_change(user, network)) is not None:
            return found
    return None


def _is_view(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _VIEW_MODULES)
    return _name(node) in _VIEWS


def _name(node: fx.Node) -> str:
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
