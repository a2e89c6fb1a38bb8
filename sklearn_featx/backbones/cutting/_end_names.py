"""Names of the ends of stages, by which `layer` reads the activations of a stage."""

from collections.abc import Sequence

from torch import nn

from ._chain import Chain

# They return their input in inference mode.
_WITHOUT_EFFECT = (nn.Identity, nn.Dropout)


def end_names(chain: Chain, stages: Sequence[str], stops: Sequence[int]) -> list[str]:
    """Return the name of the last operation or module of each stage.

    A stage has the name of its first module with weights, and may go on behind it, with an
    activation or a pooling. The name of the stage is used where both are the same.

    Parameters
    ----------
    chain : Chain
        A traced network.
    stages : sequence of str
        Names of the stages.
    stops : sequence of int
        Position of the end of each stage.
    """
    positions = chain.named_positions()
    modules = dict(chain.network.named_modules())
    found = []
    for stage, stop in zip(stages, stops, strict=True):
        if positions.get(stage, stop) == stop:
            found.append(stage)
            continue
        # A head that was removed leaves operations without effect behind.
        while isinstance(modules.get(chain.trace.names[chain.nodes[stop]]), _WITHOUT_EFFECT):
            stop = chain.position(chain.nodes[stop].all_input_nodes[0])
        ending = [name for name, position in positions.items() if position == stop]
        found.append(min(ending, key=lambda name: (name.count("."), len(name))))
    return found
