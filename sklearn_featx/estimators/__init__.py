"""Estimators: scikit-learn's interface of the flow and the training.

`_image_estimator` is the base of all estimators: shared parameters, and X to images.
`_image_reader` has the parameters of that conversion. `_finetune_base` is the base of the
fine-tuners; `_finetune_parameters` has their parameters, and `_finetune_net` keeps their nets.
Parameters are validated in `fit` and `transform`. Learned state consists of arrays and builtins,
and its names end in ``_``.

The layer imports the flow, the parts and scikit-learn. It does not use Pillow or open files. Each
class is imported from its own file, so that feature extraction does not import the training.
"""
