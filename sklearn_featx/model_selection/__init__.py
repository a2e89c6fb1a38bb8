"""Model selection: tools around a search over depths, layers and parameters.

`_composition` finds the estimators of this package inside others, `_candidates` those of a search,
`_calls` puts their fits and predictions in order, `_jobs` says what each does to images;
`_plan_search` counts passes (`_ledger`) and estimates their time (`_timing`), `_precompute`
computes their rows, `_layer_sweep` scores the layers of networks, and the choice (`_nested`).
"""
