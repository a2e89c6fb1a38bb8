"""Model selection: tools around a search over depths, layers and parameters.

`_composition` finds the estimators of this package in others, `_candidates` those of a search.
`_calls` lists their fits and predictions in order, `_jobs` their images and recipes. `_plan_search`
counts passes (`_ledger`) and estimates their time (`_timing`), and `_precompute` computes their
rows. `_layer_sweep` scores the layers of networks, and the choice among them (`_nested`).
"""
