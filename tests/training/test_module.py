"""What is frozen, what is trained, in which mode."""

import pytest
import torch
from torch import nn

from sklearn_featx.backbones._pooling import Pool
from sklearn_featx.training import TailAndHead
from sklearn_featx.training._module import (
    freeze_statistics,
    needs_batch_statistics,
    parameter_table,
)


def test_forward_is_the_chain(conv_tail):
    module = conv_tail().eval()
    rows = torch.randn(4, 3, 8, 8)
    expected = module.head(module.stages[2](module.stages[1](module.stages[0](rows))))
    torch.testing.assert_close(module(rows), expected, rtol=0, atol=0)


def test_gradients_are_required_exactly_where_trained(conv_tail):
    module = conv_tail(trained=(True, False, True))
    required = {name for name, p in module.named_parameters() if p.requires_grad}
    assert required == {n for n, _ in module.named_parameters() if not n.startswith("stages.1.")}


def test_gradient_flows_through_a_frozen_stage(conv_tail):
    module = conv_tail(trained=(True, False, True))
    module(torch.randn(4, 3, 8, 8)).sum().backward()
    assert module.stages[0][0].weight.grad.abs().sum() > 0
    assert module.stages[1][0][0].weight.grad is None


def test_a_stage_that_changes_its_input_in_place_changes_no_vector_of_the_head():
    # github.com/huggingface/pytorch-image-models/issues/1910: activations in place
    stages = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)]
    pools = Pool("max"), Pool("avg")
    module = TailAndHead(
        stages, nn.Linear(8, 2), trained=[True, True], batch_norm="frozen", pools=pools, n_read=2
    )
    rows = torch.randn(5, 3, 6, 6)
    raw = module.stages[0](rows).flatten(2)
    with torch.no_grad():
        expected = torch.cat([raw.amax(2), raw.relu().mean(2)], dim=1)
    torch.testing.assert_close(module.embed(rows), expected)
    module(rows).sum().backward()
    assert module.stages[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("batch_norm", "adapts"), [("frozen", False), ("train", True)])
def test_modes_in_training(conv_tail, batch_norm, adapts):
    module = conv_tail(batch_norm=batch_norm).train()
    assert not any(part.training for part in module.stages[0].modules())
    assert module.stages[1][0][1].training is adapts
    assert module.stages[1][1].training
    assert module.stages[2][2].training
    assert module.head.training
    assert needs_batch_statistics(module) is adapts


def test_eval_is_eval_everywhere(conv_tail):
    module = conv_tail(batch_norm="train").train().eval()
    assert not any(part.training for part in module.modules())


def test_mixed_precision_computes_in_bfloat16_and_keeps_parameters_in_float32(conv_tail):
    types = []
    plain, mixed = conv_tail(), conv_tail(mixed_precision=True)
    mixed.stages[1][0][0].register_forward_hook(lambda *given: types.append(given[2].dtype))
    rows = torch.randn(4, 3, 8, 8)
    outputs = mixed.eval()(rows)
    assert types == [torch.bfloat16]
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, plain.eval()(rows), rtol=0.05, atol=0.05)
    outputs.sum().backward()
    trained = [p for p in mixed.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {p.grad.dtype for p in trained} == {torch.float32}


def test_head_statistics_always_adapt():
    head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    module = TailAndHead([], head, trained=[], batch_norm="frozen").train()
    assert head[0].training
    assert needs_batch_statistics(module)


def test_affine_parameters_of_frozen_batch_norm_are_trained(conv_tail):
    module = conv_tail()
    norm = module.stages[1][0][1]
    assert norm.weight.requires_grad
    assert not norm.training


def test_integer_parameters_are_left_alone():
    stage = nn.Linear(2, 2)
    stage.table = nn.Parameter(torch.arange(3), requires_grad=False)
    module = TailAndHead([stage], nn.Linear(2, 2), trained=[True], batch_norm="frozen")
    assert not module.stages[0].table.requires_grad


def test_a_shared_parameter_stays_frozen():
    frozen, trained = nn.Linear(2, 2), nn.Linear(2, 2)
    trained.weight = frozen.weight
    module = TailAndHead(
        [frozen, trained], nn.Linear(2, 2), trained=[False, True], batch_norm="frozen"
    )
    assert not module.stages[1].weight.requires_grad
    assert module.stages[1].bias.requires_grad


def test_frozen_batch_norm_by_name_is_put_into_eval_mode():
    class FrozenBatchNorm2d(nn.Module):
        pass

    part = FrozenBatchNorm2d().train()
    freeze_statistics(part)
    assert not part.training


def test_batch_norm_without_running_statistics_needs_the_batch():
    assert needs_batch_statistics(nn.BatchNorm1d(3, track_running_stats=False).eval())
    assert not needs_batch_statistics(nn.BatchNorm1d(3).eval())


def test_parameter_table_counts_from_the_head(conv_tail):
    module = conv_tail()
    table = {record.name: record for record in parameter_table(module)}
    assert list(table) == [name for name, _ in module.named_parameters()]
    assert table["head.1.weight"].distance == 0
    assert table["stages.1.0.0.weight"].distance == 2
    assert table["stages.0.0.weight"].distance == 3
    assert table["head.1.weight"].parameter is module.head[1].weight
    assert table["stages.0.1.bias"].owner is module.stages[0][1]


def test_one_flag_for_each_stage():
    with pytest.raises(ValueError, match="trained has 1 entries for 2 stages"):
        TailAndHead(
            [nn.Identity(), nn.Identity()], nn.Identity(), trained=[True], batch_norm="frozen"
        )
