"""Do heat maps lie on the object? The pointing game, shuffled labels and deletion.

A cat or a cup of coffee is pasted at a random place of a random texture: 160 training images, and
500 others. The score of a model says which of the two it is, and the test is whether its map lies
on it. The backbone is the packaged EfficientNet-Lite0 at 224 pixels; the pictures are those in the
package scikit-image::

    python benchmarks/heat_maps.py

1. *Pointing*: the share of images whose strongest position lies in the box of the object. Controls:
   the center of the image, and a random position.
2. *Shuffled labels*: the mean rank correlation between maps of a model, and maps of a model that
   was trained on shuffled labels.
3. *Deletion*: cells of a 7 x 7 grid get the mean color of their image, those with the highest
   sums of the map first, or in random order, before the network. The share of images whose score,
   averaged over 12, 25, 50 and 75 % of deleted cells, is lower for the map's order.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from summary import RESULTS, write_summary

from sklearn_featx import PretrainedFeatureExtractor, heat_maps

SIDE = 224
# What surrounds the part that the network sees: its crop keeps 224 of 256 pixels.
MARGIN = 16
TEXTURES = ("brick.png", "grass.png", "gravel.png")
# File, and the box of the object in it.
OBJECTS = (("chelsea.png", (100, 20, 340, 260)), ("coffee.png", (130, 70, 450, 390)))
N_TRAIN = 160
TRAIN_SEED, TEST_SEED = 101, 102
CELLS = 7
DELETED = (0.12, 0.25, 0.5, 0.75)

LAYERS = {"last": None, "all": "all"}
HEADS = {
    "linear": lambda: LogisticRegression(max_iter=1000),
    "RBF": lambda: SVC(),
    "forest": lambda: RandomForestClassifier(100, random_state=0),
}
COLUMNS = ("layer", "head", "accuracy", "pointing", "shuffled", "deletion")


def composed(n, seed):
    """Images (n, 256, 256, 3), labels, boxes (top, left, side) in the 224 pixels that are seen."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    opened = {name: Image.open(folder / name).convert("RGB") for name in TEXTURES}
    objects = [Image.open(folder / name).convert("RGB").crop(box) for name, box in OBJECTS]
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images, boxes = [], []
    for k in labels:
        image = textured(opened[TEXTURES[rng.integers(3)]], rng)
        side = int(rng.integers(64, 97))
        top, left = rng.integers(0, SIDE - side + 1, 2)
        pixels = np.asarray(objects[k].resize((side, side)), float)
        pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        place = slice(MARGIN + top, MARGIN + top + side), slice(MARGIN + left, MARGIN + left + side)
        image[place] = (pixels * rng.uniform(0.7, 1.2)).clip(0, 255)
        images.append(image.astype(np.uint8))
        boxes.append((top, left, side))
    return np.stack(images), labels, np.array(boxes)


def textured(texture, rng):
    """Return a random part of a texture in a random color."""
    whole = SIDE + 2 * MARGIN
    side = int(rng.integers(whole, 513))
    left, top = rng.integers(0, 513 - side, 2)
    part = texture.crop((left, top, left + side, top + side)).resize((whole, whole))
    return (np.asarray(part, float) * rng.uniform(0.6, 1.3, 3)).clip(0, 255)


def hits(points, boxes):
    """Share of points (row, column) that lie in the boxes."""
    low, side = boxes[:, :2], boxes[:, 2:]
    return float(((points >= low) & (points < low + side)).all(1).mean())


def strongest(maps):
    """Rows and columns of the strongest positions."""
    places = maps.reshape(len(maps), -1).argmax(1)
    return np.stack(np.divmod(places, maps.shape[2]), axis=1)


def controls(boxes):
    """Shares of hits of the center, and of a random position."""
    center = np.full((len(boxes), 2), SIDE // 2)
    return hits(center, boxes), float((boxes[:, 2] ** 2).mean() / SIDE**2)


def fitted(head, layer, X, y):
    features = PretrainedFeatureExtractor(image_size=SIDE, layer=LAYERS[layer])
    return make_pipeline(features, StandardScaler(), HEADS[head]()).fit(X, y)


def correlation(maps, others):
    """Mean rank correlation."""
    pairs = zip(maps, others, strict=True)
    return float(np.mean([spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs]))


def without(images, kept):
    """Images whose cells (n, 7, 7) that are not kept have the mean color of their image."""
    mask = np.kron(kept, np.ones((SIDE // CELLS, SIDE // CELLS), bool))[..., np.newaxis]
    changed, seen = images.copy(), slice(MARGIN, MARGIN + SIDE)
    part = changed[:, seen, seen]
    part[:] = np.where(mask, part, images.mean((1, 2), keepdims=True)).astype(np.uint8)
    return changed


def faster(model, images, labels, maps):
    """Share of images whose score falls faster by the order of the map than by a random one."""
    n, size = len(images), maps.shape[1] // CELLS
    cells = maps.reshape(n, CELLS, size, CELLS, size).sum((2, 4)).reshape(n, -1)
    places = np.tile(np.arange(CELLS**2), (n, 1))
    orders = (-cells).argsort(1), np.random.default_rng(0).permuted(places, axis=1)
    left = []
    for order in orders:
        scores = np.zeros(n)
        for share in DELETED:
            kept = np.ones((n, CELLS**2), bool)
            np.put_along_axis(kept, order[:, : round(share * CELLS**2)], False, axis=1)
            changed = without(images, kept.reshape(-1, CELLS, CELLS))
            scores += (2 * labels - 1) * model.decision_function(changed)
        left.append(scores)
    return float((left[0] < left[1]).mean())


def play(layer, head, train, test):
    """Return a row of the table."""
    (X, y, _), (X_test, y_test, boxes) = train, test
    model = fitted(head, layer, X, y)
    found = heat_maps(model, X_test, target=y_test, size="image")
    row = {"layer": layer, "head": head, "accuracy": float(model.score(X_test, y_test))}
    row["pointing"] = hits(strongest(found.maps), boxes)
    row["shuffled"] = row["deletion"] = None
    if head == "linear":
        other = fitted(head, layer, X, np.random.default_rng(0).permutation(y))
        maps, others = (heat_maps(m, X_test, target=y_test).maps for m in (model, other))
        row["shuffled"] = correlation(maps, others)
        row["deletion"] = faster(model, X_test, y_test, maps)
    return row


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "heat_maps.json")
    settings = parser.parse_args(argv)
    train, test = composed(N_TRAIN, TRAIN_SEED), composed(settings.images, TEST_SEED)
    rows = []
    for layer in settings.layers:
        for head in settings.heads:
            start = time.perf_counter()
            row = play(layer, head, train, test)
            rows.append([row[c] if isinstance(row[c], str | None) else round(row[c], 3)
                         for c in COLUMNS])  # fmt: skip
            print(*rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    center, random = controls(test[2])
    about = {"images": settings.images, "center": round(center, 3), "random": round(random, 3)}
    write_summary(settings.output, "python benchmarks/heat_maps.py", COLUMNS, rows, **about)


if __name__ == "__main__":
    main()
