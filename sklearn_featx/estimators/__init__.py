"""Estimators: the scikit-learn contract around the flow and the training.

`_image_estimator` is the base of all: X to images, as an `_image_reader` says. `_finetune_base` is
the base of the fine-tuners; `_finetune_parameters` has their parameters, `_finetune_net` makes
their nets. Parameters are validated in `fit` and `transform`; learned state is arrays and builtins,
and ends in ``_``.

Imports the flow, the parts and scikit-learn; no Pillow, no open files. Each class is imported from
its own file, so that extracting features does not import the training.
"""
