"""A backbone with other weights: a copy, with digests of its own from the changed stage on."""

import numpy as np
import torch

from sklearn_featx.backbones import get_backbone, with_weights


def test_a_copy_with_other_weights(small_net):
    backbone = get_backbone(small_net, "DEFAULT", "stage")
    name, old = next(iter(backbone.stages[1].module.named_parameters()))
    before = old.detach().clone()
    changed = with_weights(backbone, {1: {name: np.zeros(tuple(old.shape), np.float32)}})
    new = dict(changed.stages[1].module.named_parameters())[name]
    assert (new == 0).all()
    assert torch.equal(old, before)
    digests = [backbone.digest(k) == changed.digest(k) for k in (1, 2, 3)]
    assert digests == [True, False, False]
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        outputs = [b.tapped(["body"])(images)[0] for b in (backbone, changed)]
    assert not torch.allclose(*outputs)
