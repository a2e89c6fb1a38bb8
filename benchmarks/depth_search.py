"""A search over freezing depth, compared with plain skorch.

Plain skorch runs the whole network in every step, with the lower part frozen by `requires_grad`;
its images are decoded, resized and normalized in advance and are in memory. This package starts
with an empty store and raw arrays, once in float32 and once with ``precision="bfloat16"``. All
train the same stages for the same number of epochs on the same folds, alternating in one run, depth
by depth.

The weights file is torchvision's own ``mobilenet_v2-b0353104.pth``; the images are Fashion-MNIST's
(Debian: ``dataset-fashion-mnist``)::

    python benchmarks/depth_search.py --weights mobilenet_v2-b0353104.pth --fashion-mnist FOLDER
"""

import argparse
import gzip
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import skorch
import torch
import torchvision
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score
from summary import RESULTS, command_line, write_summary
from torch import nn

from sklearn_featx import FeatureStore, FineTuneClassifier

# Names of the modules at which stages end, and the depths of the grid.
ENDS = ["features.6", "features.13", "features.17"]
DEPTHS = {"head": 0, "last convolution": 1, "blocks 14+": 2, "blocks 7+": 3}
PRECISIONS = ("float32", "bfloat16")
FIRST_TRAINED = {0: None, 1: 18, 2: 14, 3: 7}


def fashion_mnist(folder, n_images):
    """Return the first images and labels of the training set, balanced over ten classes."""
    with gzip.open(Path(folder) / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(Path(folder) / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    chosen = np.concatenate([np.flatnonzero(labels == c)[: n_images // 10] for c in range(10)])
    chosen = np.random.default_rng(0).permutation(chosen)
    return images[chosen], labels[chosen].astype(np.int64)


class PartlyFrozen(nn.Module):
    """MobileNetV2 with a new head, frozen up to a block, as in tutorials."""

    def __init__(self, weights, first_trained, n_classes=10):
        super().__init__()
        self.network = torchvision.models.mobilenet_v2(weights=None)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.requires_grad_(False)
        if first_trained is not None:
            self.network.features[first_trained:].requires_grad_(True)
        self.network.classifier[1] = nn.Linear(1280, n_classes)

    def forward(self, x):
        """Run the whole network."""
        return self.network(x)


def plain_skorch(weights, depth, epochs):
    return skorch.NeuralNetClassifier(
        PartlyFrozen,
        module__weights=str(weights),
        module__first_trained=FIRST_TRAINED[depth],
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=32,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def tensors(images, size):
    """Images in memory, preprocessed as the weights require."""
    preset = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    rgb = [torchvision.transforms.functional.to_pil_image(image).convert("RGB") for image in images]
    preset.crop_size, preset.resize_size = [size], [round(size * 232 / 224)]
    return torch.stack([preset(image) for image in rgb]).numpy()


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--fashion-mnist", required=True)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--head-init", default="probe")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "depth_search.json")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    images, labels = fashion_mnist(arguments.fashion_mnist, arguments.images)
    folds = list(StratifiedKFold(arguments.folds).split(images, labels))
    prepared = tensors(images, arguments.size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ours = {
            precision: FineTuneClassifier(
                "mobilenet_v2",
                weights=arguments.weights,
                granularity=ENDS,
                image_size=arguments.size,
                max_epochs=arguments.epochs,
                head_init=arguments.head_init,
                precision=precision,
                random_state=0,
                cache=FeatureStore(Path(folder) / precision),
            )
            for precision in PRECISIONS
        }
        for name, depth in DEPTHS.items():
            net = plain_skorch(arguments.weights, depth, arguments.epochs)
            jobs = {p: (clone(c).set_params(unfreeze_depth=depth), images) for p, c in ours.items()}
            jobs = {"plain skorch": (net, prepared), **jobs}
            for who, (estimator, X) in jobs.items():
                seconds, scores = timed(partial(cross_val_score, estimator, X, labels, cv=folds))
                found = [round(float(value), 3) for value in (seconds, scores.mean(), scores.std())]
                rows.append([name, who, *found])
                print(*rows[-1], flush=True)
    columns = ["depth", "who", "seconds", "accuracy", "accuracy_std"]
    command = command_line(__file__, parser, arguments)
    about = {name: getattr(arguments, name) for name in ("images", "epochs", "folds", "size")}
    write_summary(arguments.output, command, columns, rows, **about)


if __name__ == "__main__":
    main()
