"""Hugging Face vision models as own modules: one tensor out, cut where they can be."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones.sources._huggingface import is_huggingface
from sklearn_featx.exceptions import BackboneError, CutWarning

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def build(transformers, name):
    settings = {
        "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
        "ConvNext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
        "Swin": {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]},
    }.get(name, VIT)
    kind = f"{name}Vision" if name in ("CLIP", "Siglip") else name
    config = getattr(transformers, f"{kind}Config")(**settings)
    return getattr(transformers, f"{kind}Model")(config)


def backbone_of(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        return get_backbone(module)


@pytest.mark.parametrize(
    ("name", "n_stages"),
    [
        ("ViT", 4),
        ("Dinov2", 4),
        ("Beit", 4),
        ("CLIP", 4),
        ("Siglip", 4),
        ("ResNet", 3),
        ("ConvNext", 3),
    ],
)
def test_embeddings_and_layers_are_stages_and_exact(transformers, name, n_stages, assert_exact):
    module = build(transformers, name).eval()
    backbone = backbone_of(module)
    assert len(backbone.stages) == n_stages
    x = torch.rand(2, 3, 64, 64)
    assert_exact(backbone, x)
    (features,) = backbone.tapped([n_stages])(x)
    with torch.no_grad():
        assert torch.equal(features, module(x).last_hidden_state)


def test_what_can_be_neither_traced_nor_ordered_is_one_stage(transformers, assert_exact):
    module = build(transformers, "Swin")
    with pytest.warns(CutWarning, match="SwinLayer"):
        backbone = get_backbone(module)
    assert_exact(backbone, torch.rand(2, 3, 64, 64))


def test_the_users_model_stays_as_it_was(transformers):
    module = build(transformers, "ViT").train()
    before = copy.deepcopy(module.state_dict())
    backbone_of(module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training
    assert all(p.requires_grad for p in module.parameters())


def test_of_a_model_for_a_task_the_base_is_taken(transformers):
    config = transformers.ViTConfig(**VIT)
    module = transformers.ViTForImageClassification(config)
    backbone = backbone_of(module)
    assert backbone.name == "vitmodel"
    assert not any("classifier" in n for n, _ in backbone.network.module.named_parameters())


def test_size_channels_and_tokens_come_from_the_configuration(transformers):
    backbone = backbone_of(build(transformers, "ViT"))
    assert backbone.preprocess.output_size == (64, 64)
    assert backbone.preprocess.mean is None
    assert backbone.network.prefix_tokens == 1
    assert backbone_of(build(transformers, "ResNet")).network.prefix_tokens == 0


def test_a_tail_trains(transformers):
    backbone = backbone_of(build(transformers, "ViT"))
    tail = nn.Sequential(*backbone.tail(2)).requires_grad_(True).train()
    (rows,) = backbone.tapped([2])(torch.rand(2, 3, 64, 64))
    tail(rows).square().mean().backward()
    used = [p.grad for n, p in tail.named_parameters() if "unused" not in n]
    assert used
    assert all(grad is not None for grad in used)


def test_recognized_without_the_package():
    class Model(nn.Module):
        main_input_name = "input_ids"

        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(model_type="text")

    assert is_huggingface(Model())
    assert not is_huggingface(nn.Linear(1, 1))
    with pytest.raises(BackboneError, match="'input_ids'"):
        get_backbone(Model())
