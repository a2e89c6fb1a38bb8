"""Digests of functions from image to image: equal for equal results, none where results vary."""

import collections
import functools
import operator
import random
import struct
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import functional, v2

from sklearn_featx.backbones import digest_function

SIZE = 16
MEAN = np.array([1.0, 2.0, 3.0])
TALLY = [0]
STEPS = iter([1, 2])
LONG = list(range(4100))
LARGE = np.zeros(2**19 + 1)
DRAWN = np.random.default_rng(0)


def scaled(pixels):
    return pixels / 255


def named(picture):
    return scaled(np.asarray(picture.convert("L").resize((SIZE, SIZE))))


def scaled_up(picture):
    return picture.resize((2 * SIZE, 2 * SIZE))


def with_a_global_array(picture):
    return torch.from_numpy(np.asarray(picture) - MEAN).permute(2, 0, 1)


def with_an_import(picture):
    import colorsys

    pixels = np.array(picture)
    pixels[pixels < 3] = 0
    return pixels * colorsys.rgb_to_hsv(1, 0, 0)[1]


def with_a_local_count(picture):
    count = 0

    def step():
        nonlocal count
        count += 1

    step()
    return picture


@dataclass
class Resized:
    side: int

    def __call__(self, picture):
        return picture.resize((self.side, self.side))


class Several:
    def __init__(self, steps):
        self.steps = []
        for step in steps:
            self.steps.append(step)

    def __call__(self, picture):
        return np.asarray(picture) * sum(self.steps)


def scaled_by(picture, divisor):
    return np.asarray(picture) / divisor


class Centered:
    def __init__(self):
        self.mean = np.ones(3)

    def __call__(self, picture):
        values = np.asarray(picture) - self.mean
        values /= MEAN
        return values


TM = torch.tensor([0.5, 0.25, 0.125])
KERNEL = np.ones(3)


def letterbox(picture):
    canvas = np.full((32, 32, 3), 114, np.uint8)
    pixels = np.asarray(picture)
    canvas[: len(pixels), : pixels.shape[1]] = pixels
    return canvas - MEAN


CERTAIN = {
    "object with an array": Centered(),
    "argument": lambda picture: np.convolve(np.asarray(picture)[0, :, 0], KERNEL),
    "left operand": lambda picture: MEAN * np.asarray(picture),
    "ufunc": lambda picture: np.subtract(np.asarray(picture), MEAN),
    "as tensor": lambda picture: torch.from_numpy(np.array(picture)) - torch.as_tensor(MEAN),
    "axes": lambda picture: functional.to_tensor(picture) - TM[:, None, None],
    "array of a partial": functools.partial(scaled_by, divisor=MEAN),
    "left row": lambda picture: (MEAN)[None] * np.asarray(picture),
    "reshaped": lambda picture: np.asarray(picture) / MEAN.reshape(1, 1, 3),
    "letterbox": letterbox,
    "function": named,
    "global array": with_a_global_array,
    "import": with_an_import,
    "local count": with_a_local_count,
    "object": Resized(3),
    "object with a list": Several([1, 2]),
    "partial": functools.partial(scaled_by, divisor=7),
    "lambda": lambda picture: np.asarray(picture)[None] / np.float32(255),
    "Pillow": lambda picture: ImageOps.autocontrast(ImageOps.grayscale(picture)),
    "torchvision": transforms.Compose([
        transforms.Lambda(scaled_up), transforms.Resize(16), transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    ]),
    "torchvision v2": v2.Compose([v2.Resize(16), v2.ToImage(), v2.ToDtype(torch.float32)]),
    "of weights": models.ResNet18_Weights.DEFAULT.transforms(),
    "functional": lambda picture: functional.to_tensor(functional.resize(picture, [16, 16])),
    "sequence": nn.Sequential(v2.Resize(4), v2.ToImage()),
}  # fmt: skip


@pytest.mark.parametrize("name", CERTAIN)
def test_what_always_gives_the_same(name):
    found = digest_function(CERTAIN[name])
    assert found.unnamed == ()
    CERTAIN[name](Image.new("RGB", (20, 18), (9, 99, 199)))
    assert digest_function(CERTAIN[name]) == found
    others = {digest_function(other).text for key, other in CERTAIN.items() if key != name}
    assert found.text not in others


def test_timm_and_transformers():
    data = pytest.importorskip("timm.data")
    transformers = pytest.importorskip("transformers")
    assert digest_function(data.create_transform(32, is_training=False)).unnamed == ()
    assert digest_function(data.create_transform(32, is_training=True)).unnamed
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8})

    def processed(picture):
        return processor(picture, return_tensors="np")["pixel_values"][0]

    before = digest_function(processed)
    assert before.unnamed == ()
    processed(Image.new("RGB", (9, 9)))
    assert digest_function(processed) == before


def counting(picture):
    TALLY[0] += 1
    return picture


def with_a_global(picture):
    global SIZE
    SIZE += 1
    return picture


def closure():
    count = 0

    def step(picture):
        nonlocal count
        count += 1
        return picture

    return step


class Counter(Resized):
    def __call__(self, picture):
        self.side += 1
        return picture


class Remembering(Resized):
    def __init__(self):
        self.seen = {}

    def __call__(self, picture):
        self.seen[picture.size] = picture
        return picture


class Wandering(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, picture):
        self.mean.add_(1)
        return self.mean


def with_a_random_import(picture):
    from random import random as draw

    return np.asarray(picture) * draw()


class OfAllObjects(Resized):
    seen: ClassVar = []

    def __call__(self, picture):
        self.seen.append(picture)
        return picture


class Slotted:
    __slots__ = ("seen",)

    def __init__(self):
        self.seen = []

    def __call__(self, picture):
        self.seen.append(picture)
        return picture


def remembered(picture, seen):
    seen.append(picture)
    return picture


def with_a_helper(picture):
    return remembered(picture, TALLY)


def with_a_tuple(picture, state=(TALLY, 1)):
    state[0].append(picture)
    return picture


UNCERTAIN = {
    "global number": with_a_global,
    "closure": closure(),
    "attribute": Counter(1),
    "numpy": lambda picture: np.asarray(picture) + np.random.rand(),  # noqa: NPY002
    "random": lambda picture: np.asarray(picture) + random.random(),
    "an import": with_a_random_import,
    "method of a module": lambda picture, draw=random.random: draw(),
    "generator": lambda picture: DRAWN.normal(),
    "generator as default": lambda picture, generator=DRAWN: generator.bytes(1),
    "torch": lambda picture: torch.ones(3).normal_(),
    "dropout": lambda picture: nn.functional.dropout(torch.ones(3)),
    "Dropout": nn.Sequential(nn.Dropout()),
    "BatchNorm": nn.BatchNorm2d(3),
    "Pillow": lambda picture: picture.effect_spread(3),
    "crop": transforms.Compose([transforms.RandomCrop(4), transforms.ToTensor()]),
    "crop in a function": lambda picture: transforms.RandomCrop(4)(picture),
    "jitter": transforms.ColorJitter(0.1),
    "blur": v2.GaussianBlur(3),
    "JPEG": v2.JPEG((3, 9)),
    "AutoAugment": transforms.AutoAugment(),
    "some of the time": transforms.RandomApply([transforms.Grayscale()]),
    "clock": lambda picture: np.asarray(picture) + time.time(),
    "file": lambda picture: np.asarray(picture) * np.load("mean.npy"),
    "name of a file": lambda picture, path=__file__: np.asarray(picture) * len(path),
    "iterator": lambda picture, steps=STEPS: next(steps),
    "hash": lambda picture: hash(str(picture)),
    "by name": lambda picture: getattr(torch, "r" + "and")(3),
    "modules": lambda picture: sys.modules["random"].gauss(0, 1),
    "memory that was not set": lambda picture: torch.empty(3),
    "memory around a view": lambda picture: MEAN[:1].base,
    "long list": lambda picture: np.asarray(picture) - LONG[3],
    "large bytes": lambda picture, table=bytes(2**22): table[9],
    "large array": lambda picture: np.asarray(picture) - LARGE,
    "gradient that is summed": lambda picture: (TENSOR * 2).sum().backward() or TENSOR.grad,
    "unknown library": lambda picture: pytest.approx(picture),
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_may_vary_has_no_certain_digest(name):
    assert digest_function(UNCERTAIN[name]).unnamed


def in_place(kind):
    total = np.zeros(3, np.float32)

    def alias(picture):
        same = total
        same += np.asarray(picture).mean()
        return same

    def out(picture):
        return np.subtract(total, np.asarray(picture).mean(), out=total)

    def default(picture, total=total):
        total += np.asarray(picture).mean()
        return total

    return locals()[kind]


SUM = np.zeros((3, 4, 3))
TENSOR = torch.tensor([3.0, 1.0, 2.0])
POLYNOMIAL = np.poly1d([1.0, 2.0])
OBJECTS = np.array([[], None], dtype=object)
PICTURE = Image.new("L", (2, 2))
BYTES = bytearray(3)
COUNTS = collections.defaultdict(int)


def of_rows(picture):
    for row in SUM:
        row += 1
    return picture


def returned(picture):
    def total():
        return SUM

    same = total()
    same += 1
    return picture


def by_special_method(picture):
    SUM.__iadd__(1)
    return picture


def by_attributes(picture):
    by_attributes.__dict__["seen"] = by_attributes.__dict__.get("seen", 0) + 1
    return picture


@functools.cache
def kept_results():
    return []


class Parent(dict):
    def __call__(self, picture):
        super().update({len(self): 1})
        return np.asarray(picture) * len(self)


LISTS = [[0], [0]]


def of_an_item(picture):
    row = LISTS[0]
    row += [1]
    return np.asarray(picture) * len(LISTS[0])


class Registering(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, picture):
        self.register_buffer("count", self.count + 1)
        return self.count


KEPT = {
    "sum by another name": in_place("alias"),
    "sum by out=": in_place("out"),
    "sum in a default": in_place("default"),
    "attribute of a class": OfAllObjects(1),
    "slot": Slotted(),
    "argument of a helper": with_a_helper,
    "argument of a partial": functools.partial(remembered, seen=[]),
    "list in a tuple": with_a_tuple,
    "global list": counting,
    "attribute of a dict": Remembering(),
    "buffer": Wandering(),
    "another buffer": Registering(),
    "default": lambda picture, seen=[]: seen.append(picture) or picture,
    "array in a set": lambda picture, kept=frozenset([TENSOR]): min(kept).add_(1),
    "array of an object of a library": lambda picture: POLYNOMIAL.__setitem__(0, 9),
    "array of objects": lambda picture: OBJECTS[0].append(1),
    "data of a library": lambda picture: np.sctypeDict.update(own=len(np.sctypeDict)),
    "argument": lambda picture: np.add(SUM, 1, SUM),
    "view": lambda picture: SUM.reshape(-1).put(0, SUM[0, 0] + 1),
    "method of the parent": Parent(),
    "item in place": of_an_item,
    "row": lambda picture: operator.iadd(SUM[0], 1),
    "rows": of_rows,
    "result of a function": returned,
    "argument of a library": lambda picture: np.frexp(SUM + 3, SUM, None),
    "memory of a tensor": lambda picture: TENSOR.numpy().partition(1),
    "special method": by_special_method,
    "attributes of a function": by_attributes,
    "method as default": lambda picture, note=TALLY.append: note(1),
    "partial of an operator": functools.partial(operator.iadd, SUM),
    "method by name": lambda picture, note=operator.methodcaller("append", 1): note(TALLY),
    "read of a default": lambda picture: COUNTS[len(COUNTS)],
    "picture": lambda picture: PICTURE.putpixel((0, 0), PICTURE.getpixel((0, 0)) + 1),
    "drawing": lambda picture: ImageDraw.Draw(PICTURE).point((1, 1), 9),
    "bytes": lambda picture: struct.pack_into("B", BYTES, 1, BYTES[1] + 1),
    "results": lambda picture: kept_results().append(1),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_call_that_changes_what_outlives_it_changes_the_digest(name):
    function, picture = KEPT[name], Image.new("RGB", (4, 3), (9, 99, 199))
    before = digest_function(function)
    function(picture)
    after = digest_function(function)
    assert before.unnamed or after != before
    np.sctypeDict.pop("own", None)


def test_own_values_in_place_are_certain():
    mean = np.float32([0.5, 0.4, 0.3])

    def centered(picture):
        values = np.asarray(picture, dtype=np.float32)
        values -= mean
        return values

    assert not digest_function(centered).unnamed


def test_what_a_function_reads_is_in_its_digest(monkeypatch):
    before = digest_function(named).text
    monkeypatch.setitem(named.__globals__, "SIZE", 17)
    assert digest_function(named).text != before
    monkeypatch.undo()
    assert digest_function(named).text == before
    monkeypatch.setitem(named.__globals__, "scaled", lambda pixels: pixels / 256)
    assert digest_function(named).text != before

    def made(power, *, gain=1):
        return lambda picture, gain=gain: np.asarray(picture) ** power * gain

    texts = [digest_function(f).text for f in (made(1), made(2), made(1, gain=2), made(1))]
    assert len(set(texts)) == 3
    assert texts[0] == texts[3]
    assert digest_function(Resized(3)).text != digest_function(Resized(4)).text
    sizes = [digest_function(transforms.Resize(size)).text for size in (3, 4)]
    assert sizes[0] != sizes[1]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # deprecated after PyTorch 2.6
def test_a_script_has_no_certain_digest():
    script = torch.jit.trace(nn.Identity(), torch.ones(1))
    assert digest_function(script).unnamed
