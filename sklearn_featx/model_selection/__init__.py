"""Model selection: tools around a search over depths, layers and parameters.

`_candidates` finds the estimators of this package in a search; `_plan_search` counts their passes,
`_precompute` computes their rows, `_layer_sweep` scores the layers of a network.
"""
