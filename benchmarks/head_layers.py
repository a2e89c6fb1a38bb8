"""Heads that read all stages: their linear probe, and the gain of fine-tuning.

Images, seeds and epochs are those of ``finetune_study.py``, whose results are in the same tables of
the documentation: 50, 200 and 2,000 training images of Fashion-MNIST and MNIST at 64 pixels, three
seeds, 10 epochs, 1,000 other images for the score. It writes after every fit, and the same command
continues an interrupted run; ``--report`` fits nothing::

    python benchmarks/head_layers.py --fashion-mnist FOLDER --mobilenet mobilenet_v2-b0353104.pth

The most informative fits come first:

1. *rates*: `backbone_lr_ratio` of 0.1, 0.3 and 1, with a seed that the other fits do not use.
2. *heads*: the probe on all layers, and 1, 2 and 4 trained stages at the default rate.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

from finetune_study import DATA, DEPTHS, draw, source, standard_error
from summary import RECORDS, RESULTS, write_summary

from sklearn_featx import FineTuneClassifier

RATIOS = (0.1, 0.3, 1.0)
RATES_SEED, SEEDS = 3, (0, 1, 2)
# Numbers of images and depths. Fits of 2,000 images take minutes: they come last.
ORDER = ((200, 0), (50, 0), (200, 4), (2000, 0), (50, 4), (2000, 4), (200, 1), (50, 1), (2000, 2),
         (200, 2), (50, 2), (2000, 1))  # fmt: skip
DATA_SETS = ("Fashion-MNIST", "MNIST")
KEY = ("data", "backbone", "n_images", "seed", "depth", "ratio")


def rates(settings):
    """Yield the cells that choose the rate, of the deepest training."""
    places = itertools.product((200, 2000), settings.data, settings.backbones, RATIOS)
    for n, data, backbone, ratio in places:
        yield data, backbone, n, RATES_SEED, DEPTHS[-1], ratio


def heads(settings):
    default = FineTuneClassifier().backbone_lr_ratio
    for n, depth in settings.order:
        for seed, backbone, data in itertools.product(SEEDS, settings.backbones, settings.data):
            yield data, backbone, n, seed, depth, default if depth else None


def plan(settings):
    """Yield the rates with 200 images first, those with 2,000 after the first heads."""
    if settings.smoke:
        return list(heads(settings))
    small, large = itertools.tee(rates(settings))
    cells = list(heads(settings))
    later = next(k for k, cell in enumerate(cells) if cell[2] == 2000 and cell[4] == 4)
    return [
        *(cell for cell in small if cell[2] == 200),
        *cells[:later],
        *(cell for cell in large if cell[2] == 2000),
        *cells[later:],
    ]


def measure(cell, train, test, settings):
    """Fit one cell and score it."""
    _, backbone, n, seed, depth, ratio = cell
    name, weights = source(backbone, settings)
    model = FineTuneClassifier(
        name,
        weights=weights,
        unfreeze_depth=depth,
        head_layers="all",
        image_size=settings.image_size,
        max_epochs=settings.epochs,
        random_state=seed,
        cache=settings.store,
    )
    if ratio is not None:
        model.set_params(backbone_lr_ratio=ratio)
    start = time.perf_counter()
    model.fit(*draw(*train, n, seed))
    return {"accuracy": float(model.score(*test)), "seconds": time.perf_counter() - start}


def key(fit):
    return tuple(fit[name] for name in KEY)


def run(settings):
    """Fit the missing cells, write after each fit, and return all fits."""
    fits = json.loads(settings.records.read_text()) if settings.records.exists() else []
    done = {key(fit) for fit in fits}
    loaded = {}
    for cell in plan(settings):
        if cell in done:
            continue
        if cell[0] not in loaded:
            loaded[cell[0]] = DATA[cell[0]](settings)
        fits.append(dict(zip(KEY, cell, strict=True)) | measure(cell, *loaded[cell[0]], settings))
        settings.records.parent.mkdir(parents=True, exist_ok=True)
        settings.records.write_text(json.dumps(fits, indent=1) + "\n")
        print(*fits[-1].values(), flush=True)
    return fits


def write(fits, settings):
    """Save mean, standard error and number of seeds; each rate has the probe beside it."""
    found = {}
    for fit in fits:
        part = "rates" if fit["seed"] == RATES_SEED else "heads"
        place = part, fit["data"], fit["backbone"], fit["n_images"]
        cells = found.setdefault(place, {}).setdefault(fit["ratio"], {})
        cells.setdefault(fit["depth"], []).append(100 * fit["accuracy"])
    rows = []
    for place, by_ratio in sorted(found.items()):
        probe = by_ratio.pop(None, {})
        for ratio, cells in sorted((by_ratio or {None: {}}).items()):
            rows.append([*place, ratio, *(_cell((probe | cells).get(depth)) for depth in DEPTHS)])
    command = "python benchmarks/head_layers.py --fashion-mnist FOLDER --mobilenet FILE"
    names = ["part", "data", "backbone", "n_images", "ratio"]
    names += [f"depth {depth}" for depth in DEPTHS]
    write_summary(settings.output, command, names, rows, image_size=settings.image_size)


def _cell(accuracies):
    if accuracies is None:
        return None
    error = standard_error(accuracies)
    mean = round(statistics.fmean(accuracies), 1)
    return [mean, error if error is None else round(error, 1), len(accuracies)]


def parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("--mobilenet", metavar="FILE", help="weights of torchvision's mobilenet_v2")
    parser.add_argument("--records", type=Path, default=RECORDS / "head_layers.json")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "head_layers.json")
    parser.add_argument("--store", default=True, help="where rows of frozen parts are kept")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--report", action="store_true", help="fit nothing, write the summary")
    parser.add_argument("--smoke", action="store_true", help="tiny, on scikit-learn's own digits")
    return parser


def main(argv=None):
    settings = parser().parse_args(argv)
    # The faster one first.
    settings.backbones = [*(["mobilenet_v2"] if settings.mobilenet else []), "efficientnet_lite0"]
    settings.data, settings.order, settings.epochs = DATA_SETS, ORDER, 10
    if settings.smoke:
        settings.data, settings.order, settings.epochs = ("digits",), ((30, 0), (30, 1)), 1
        settings.image_size, settings.test_images = 32, 50
    fits = json.loads(settings.records.read_text()) if settings.report else run(settings)
    write(fits, settings)


if __name__ == "__main__":
    main()
