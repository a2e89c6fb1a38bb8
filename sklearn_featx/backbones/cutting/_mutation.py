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


def use_changed_values(graph: fx.Graph, network: nn.Module) -> fx.Node | None:
    """Let the readers of a value that was changed in place read the result of the change.

    A part of the graph has the operations that its result depends on. Without this, it would lack
    a change of a value that it reads by its former name.

    Parameters
    ----------
    graph : fx.Graph
        The graph, which is changed.
    network : nn.Module
        The network.

    Returns
    -------
    hidden : fx.Node or None
        A change that other operations see through a view of the value, which cannot be expressed.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        called = node.op in ("call_module", "call_function", "call_method")
        source = node.args[0] if called and node.args else None
        if not isinstance(source, fx.Node) or not works_in_place(node, network):
            continue
        shared = _views_beside(node, source, network)
        readers = {user for view in shared for user in view.users} - shared
        if any(order[reader] > order[node] for reader in readers):
            hidden: fx.Node = node
            return hidden
        for user in list(source.users):
            if order[user] > order[node]:
                user.replace_input_with(source, node)
    return None


def _views_beside(change: fx.Node, source: fx.Node, network: nn.Module) -> set[fx.Node]:
    """Return other names of a value that a change does not return: its base and views of both."""
    base = source
    while base.all_input_nodes and _is_view(base, network):
        base = base.all_input_nodes[0]
    found, stack = set(), [base]
    while stack:
        node = stack.pop()
        found.add(node)
        stack += [u for u in node.users if u is not change and _is_view(u, network)]
    return found - {source}


def _is_view(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _VIEW_MODULES)
    return _name(node) in _VIEWS


def _name(node: fx.Node) -> str:
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
