"""Cutting of a network into an ordered chain of stages.

`_tracing` traces the forward pass, `_chain` cuts it where exactly one value crosses, `_sequence`
cuts a network that cannot be traced by the order of its parts, `_granularity` names the stages, and
`_segment` is a part of the network as a module.
"""
