"""Which pooling of all layers? The linear probe of the fine-tuners on each, on held-out images.

200 and 2,000 training images of Fashion-MNIST and MNIST as in ``finetune_study.py``, and 200 and
1,000 solar cells of the package elpv-dataset, whose defects lie anywhere. The backbone is the
packaged EfficientNet-Lite0; three seeds; 1,000 other images for the score, 600 solar cells::

    python benchmarks/poolings.py --fashion-mnist FOLDER
"""

import argparse
import statistics
from importlib.resources import files
from pathlib import Path

import numpy as np
from finetune_study import DATA, draw, standard_error
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from summary import RESULTS, write_summary

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.training import fit_linear_probe_classifier

POOLINGS = (["avg"], ["max"], ["avg", "max"], ["grid2"], ["grid3"])
SEEDS = (0, 1, 2)
N_SOLAR_TESTED = 600


def solar_cells():
    """Return paths of solar cells, and whether they are more likely defective than not."""
    folder = files("elpv_dataset") / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text("utf-8").splitlines()]
    return np.array([str(folder / row[0]) for row in rows]), np.array(
        [float(row[1]) > 0.5 for row in rows]
    )


def splits(settings):
    """Yield data set, number of images, side in pixels, and the split of each seed."""
    for name in ("digits",) if settings.smoke else ("Fashion-MNIST", "MNIST"):
        train, test = DATA[name](settings)
        for n in (30,) if settings.smoke else (200, 2000):
            yield name, n, settings.image_size, [(draw(*train, n, seed), test) for seed in SEEDS]
    cells, labels = ([], []) if settings.smoke else solar_cells()
    for n in () if settings.smoke else (200, 1000):
        found = []
        for seed in SEEDS:
            parts = train_test_split(
                cells, labels, train_size=n, test_size=N_SOLAR_TESTED, stratify=labels,
                random_state=seed,
            )  # fmt: skip
            found.append(((parts[0], parts[2]), (parts[1], parts[3])))
        yield "solar cells", n, 112, found


def score(extractor, train, test):
    """Return the balanced accuracy of the probe, and the number of its columns."""
    features = extractor.fit_transform(train[0])
    layers = [name.rsplit("_", 2)[0] for name in extractor.get_feature_names_out()]
    # The last layer is a vector: each pooling gives it once more.
    last = layers.index(layers[-1])
    n_kept = last + layers.count(layers[-1]) // max(1, len(extractor.pooling))
    widths = [layers[:n_kept].count(name) for name in dict.fromkeys(layers[:n_kept])]
    classes, codes = np.unique(train[1], return_inverse=True)
    model = fit_linear_probe_classifier(
        features[:, :n_kept], codes, len(classes), C="auto", widths=widths
    )
    outputs = extractor.transform(test[0])[:, :n_kept] @ model.weight.T + model.bias
    return balanced_accuracy_score(test[1], classes[outputs.argmax(1)]), n_kept


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "poolings.json")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--smoke", action="store_true", help="tiny, on scikit-learn's own digits")
    settings = parser.parse_args(argv)
    if settings.smoke:
        settings.image_size, settings.test_images = 32, 50
    rows = []
    for name, n, side, parts in splits(settings):
        for pooling in POOLINGS:
            extractor = PretrainedFeatureExtractor(layer="all", pooling=pooling, image_size=side)
            scores, widths = zip(*(score(extractor, *part) for part in parts), strict=True)
            accuracies = [100 * found for found in scores]
            mean = round(statistics.fmean(accuracies), 1)
            error = round(standard_error(accuracies), 1)
            rows.append([name, n, " and ".join(pooling), widths[0], [mean, error, len(parts)]])
            print(*rows[-1], flush=True)
    command = "python benchmarks/poolings.py --fashion-mnist FOLDER"
    write_summary(
        settings.output, command, ["data", "n_images", "pooling", "columns", "accuracy"], rows
    )


if __name__ == "__main__":
    main()
