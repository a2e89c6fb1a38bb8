"""Every tensor is on the device: shown without a card, by tensors that have a device and no values.

An operation on tensors of two devices raises. Backward passes need a card, so gradients are given.
"""

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn

from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones._stage import _fake_tensors
from sklearn_featx.engines import _torch
from sklearn_featx.engines._torch import TorchEngine
from sklearn_featx.flow._recipe import Recipe, Tap
from sklearn_featx.training import (
    RowsDataset,
    TailAndHead,
    load_trained_state,
    make_head,
    make_net,
    start_head,
    trained_state,
)
from sklearn_featx.training._callbacks import BestWeights
from sklearn_featx.training._net import FineTuneNet
from sklearn_featx.training._probe import LinearModel

GPU = torch.device("cuda:0")
POOLINGS = ["avg", "max", "avgmax", "gem", "grid2", "flatten", None]

pytestmark = pytest.mark.skipif(
    _fake_tensors() is None or Version(torch.__version__) < Version("2.7"),
    reason="no tensors without values, or, in PyTorch 2.6, some that ask the driver of the GPU",
)


class Positions(nn.Module):
    """Asks for devices as networks do: of a weight, of a table, of its input, by a constant."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("table", torch.ones(8, 1, 1))
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        # A trace writes the device of a table into the graph.
        x = self.norm(self.conv(x).to(device=self.table.device)) * self.table
        steps = torch.arange(8, device=self.table.device).reshape(8, 1, 1)
        zero = torch.zeros(1, device="cpu", dtype=x.dtype)
        x = x + steps.to(self.conv.weight.device) + zero.to(x.device)
        slope = torch.linspace(0, 1, 8, device=x.device, dtype=x.dtype)
        return self.last(torch.relu(x + slope[:, None, None]))


@pytest.fixture
def mode(monkeypatch):
    """Let modules go to a GPU that is not there; tensors are made there within the mode."""
    mode = _fake_tensors()(allow_non_fake_inputs=True)

    def fake(tensor, device):
        with mode:
            known = tensor if hasattr(tensor, "fake_mode") else mode.from_tensor(tensor.detach())
            return known.to(device)

    def to(module, device, *args, **kwargs):
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    moved = nn.Parameter(fake(parameter.data, device), parameter.requires_grad)
                    part._parameters[name] = moved
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = fake(buffer, device)
        return module

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(_torch, "finish_copies", lambda device: None)
    return mode


def rows_on_gpu(mode, *shape, dtype=torch.float32):
    with mode:
        return torch.empty(*shape, dtype=dtype, device=GPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("network", ["small_net", "own"])
def test_engines(mode, request, network, dtype):
    module = Positions() if network == "own" else request.getfixturevalue(network)
    backbone = get_backbone(module)
    last = len(backbone.stages)
    taps = tuple(Tap(k, pooling) for pooling in POOLINGS for k in (1, last))
    recipe = Recipe(backbone, taps, backbone.preprocess)
    normalize, trunk = recipe.trunk
    engine = TorchEngine(trunk, recipe.pools, normalize=normalize, device=GPU, dtype=dtype)
    pixels = rows_on_gpu(mode, 2, 16, 16, 1, dtype=torch.uint8)
    with mode, torch.inference_mode():
        results = engine._whole(pixels)
    assert len(results) == len(taps)
    assert {(result.device, result.dtype) for result in results} == {(GPU, torch.float32)}


def test_a_mix_of_devices_would_be_seen(mode):
    module = Positions()
    module.conv.to(GPU)
    with mode, pytest.raises(RuntimeError, match="device"):
        module(torch.empty(2, 1, 16, 16, device=GPU))


class OwnHead(nn.Module):
    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_outputs)
        self.register_buffer("offset", torch.ones(n_outputs))

    def forward(self, x):
        return self.linear(x) + self.offset


def make_module(head="linear", mixed_precision=False, state=None):
    backbone = get_backbone(Positions(), granularity="stage")
    made = make_head(head, 8, 3, seed=0)
    if isinstance(head, str):
        embeddings = np.random.default_rng(0).normal(size=(6, 8))
        model = LinearModel(np.ones((3, 8)), np.zeros(3), 1.0) if head == "linear" else None
        start_head(made, embeddings, None, model=model) if model else None
    module = TailAndHead(
        backbone.tail(0),
        made,
        trained=[k > 0 for k in range(len(backbone.stages))],
        batch_norm="train",
        mixed_precision=mixed_precision,
        pools=(backbone.pool("grid3"), backbone.pool("avg")),
    )
    if state is not None:
        load_trained_state(module, state)
    return module


def initialized(**settings):
    parameters = {
        "task": "classification",
        "lr": 0.01,
        "backbone_lr_ratio": 0.1,
        "weight_decay": 0.1,
        "max_epochs": 1,
        "batch_size": 4,
        "device": "cpu",
    }
    module = settings.pop("module", {})
    net = make_net(lambda: make_module(**module), **parameters | settings)
    # Seeding a generator needs a card: the module is made as on a CPU and moved as skorch does.
    net.initialize()
    net.device = GPU
    net.module_.to(GPU)
    net.criterion_.to(GPU)
    return net


def devices(tensors):
    return {tensor.device for tensor in tensors if tensor.ndim}


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_step_of_training(mode, monkeypatch, task, optimizer):
    net = initialized(task=task, optimizer=optimizer)
    net.initialize_optimizer()
    monkeypatch.setattr(type(net), "_check_finite", lambda net, loss: None)

    def backward(loss):
        assert loss.device == GPU
        with mode:
            for parameter in net.module_.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    targets = np.array([0, 1, 2, 0]) if task == "classification" else np.ones((4, 3))
    dataset = RowsDataset(np.zeros((4, 1, 16, 16), np.float32), targets)
    with mode:
        batch = dataset.__getitems__(range(4))
        step = net.train_step(batch)
        net.optimizer_.step()
        valid = type(net).validation_step(net, batch)
    assert {step["loss"].device, step["y_pred"].device, valid["loss"].device} == {GPU}
    kept = [v for s in net.optimizer_.state.values() for v in s.values() if v is not None]
    assert kept
    assert devices(kept) == {GPU}


@pytest.mark.parametrize("head", ["linear", "mlp", OwnHead, nn.Linear(8, 3)], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.filterwarnings("ignore:.*Disabling autocast")
def test_tails_and_heads(mode, head, training, mixed_precision):
    net = initialized(module={"head": head, "mixed_precision": mixed_precision})
    net.module_.train(training)
    with mode, torch.no_grad():
        outputs = net.infer(torch.empty(4, 1, 16, 16))
    assert (outputs.device, outputs.shape) == (GPU, (4, 3))


@pytest.fixture
def state():
    net = FineTuneNet(make_module, criterion=nn.CrossEntropyLoss).initialize()
    return trained_state(net)


def test_a_state_that_is_loaded(state, mode):
    net = initialized(module={"state": state})
    with mode, torch.no_grad():
        assert net.infer(torch.empty(4, 1, 16, 16)).device == GPU
    # Also into a module that is there already.
    load_trained_state(net.module_, state)
    tensors = [*net.module_.parameters(), *net.module_.buffers()]
    assert {tensor.device for tensor in tensors} == {GPU}


def test_weights_of_the_best_epoch(mode):
    net = initialized(early_stopping=True)
    (stopping,) = [c for _, c in net.callbacks_ if isinstance(c, BestWeights)]
    with mode:
        stopping.best_model_weights_ = {k: v.clone() for k, v in net.module_.state_dict().items()}
        net.module_.load_state_dict(stopping.best_model_weights_)
    assert {tensor.device for tensor in net.module_.state_dict().values()} == {GPU}
