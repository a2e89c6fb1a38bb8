"""Cutting: a network becomes an ordered chain of stages.

`_tracing` follows the forward pass, `_chain` cuts it where exactly one value crosses, `_sequence`
cuts by the order of the parts where tracing fails, `_granularity` names the stages, `_segment` is a
piece of the network as a module.
"""
