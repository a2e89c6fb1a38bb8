"""Looking at data sets: maps with thumbnails, mistakes, wrong labels, near duplicates."""

import html
import json
import re
import shutil
import subprocess

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.offsetbox import AnnotationBbox
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import SpectralEmbedding
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import (
    EmbeddingDisplay,
    MistakesDisplay,
    PretrainedFeatureExtractor,
    label_issues,
    near_duplicates,
)
from sklearn_featx.exceptions import RangeWarning
from sklearn_featx.inspection import _near_duplicates
from sklearn_featx.inspection._embedding_display import MapColumns

mpl.use("Agg")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def _closed():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


def small(**parameters):
    return PretrainedFeatureExtractor(**{"layer": "blocks.2", "image_size": 32} | parameters)


def data_of(page):
    """What a page carries."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


class TestEmbeddingDisplay:
    def test_thumbnails_lie_at_their_points(self, digits):
        X, y = digits
        display = EmbeddingDisplay.from_estimator(small(), X, y, thumbnail_size=24)
        assert display.points.shape == (60, 2)
        boxes = [a for a in display.ax_.artists if isinstance(a, AnnotationBbox)]
        assert 5 < len(boxes) <= 60
        # They do not overlap.
        at = np.array([box.xy for box in boxes]) / np.ptp(display.points, axis=0) * 12
        apart = np.abs(at[:, np.newaxis] - at).max(2)
        assert apart[~np.eye(len(at), dtype=bool)].min() >= 0.99
        places = {tuple(point): i for i, point in enumerate(display.points)}
        for box in boxes:
            drawn = np.asarray(box.offsetbox.image.get_array())
            i = places[tuple(box.xy)]
            np.testing.assert_array_equal(drawn, display.thumbnails[i])
            assert box.patch.get_edgecolor() == mpl.colors.to_rgba(f"C{y[i]}")
            # Digits are light on dark: the picture is the digit.
            own = np.asarray(Image.fromarray(X[i]).resize((24, 24)), float)
            assert np.corrcoef(drawn.mean(2).ravel(), own.ravel())[0, 1] > 0.9
        assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == ["0", "1", "2"]

    def test_projection_is_any_transformer(self, digits):
        projection = SpectralEmbedding(2, affinity="rbf", random_state=0)
        display = EmbeddingDisplay.from_estimator(small(), digits[0][:12], projection=projection)
        assert display.points.shape == (12, 2)
        assert not hasattr(projection, "embedding_")

    def test_pipelines_say_what_they_predict(self, digits):
        X, y = digits
        model = make_pipeline(small(), StandardScaler(), LogisticRegression()).fit(X, y)
        columns = EmbeddingDisplay.from_estimator(model, X, y).columns
        np.testing.assert_array_equal(columns.predictions, model.predict(X))
        np.testing.assert_allclose(columns.scores, model.predict_proba(X).max(1), atol=1e-5)
        plain = EmbeddingDisplay.from_estimator(model[:2], X, np.linspace(0, 1, 60))
        assert plain.columns.predictions is None
        assert len(plain.figure_.axes) == 2

    def test_unreadable_images_are_left_out(self, digit_files, tmp_path):
        paths, _ = digit_files
        X = [paths[0], "nowhere.png", *paths[1:9]]
        with pytest.warns(UserWarning, match="nowhere"):
            display = EmbeddingDisplay.from_estimator(small(on_error="nan"), X, np.arange(10))
        assert display.rows.tolist() == [0, *range(2, 10)]
        assert display.columns.labels.tolist() == [0, *range(2, 10)]
        assert display.columns.paths[1] == paths[1]

    def test_page_has_all_and_needs_nothing(self, digits, tmp_path):
        X, y = digits
        names = np.array(["</script><b>", "&amp;", "ß"])[y]
        display = EmbeddingDisplay.from_estimator(
            small(), X, names, columns={"fold": y, "brightness": X.mean((1, 2))}
        )
        page = display.to_html(tmp_path / "map.html").read_text("utf-8")
        data = data_of(page)
        assert data["x"] == pytest.approx(display.points[:, 0], rel=1e-5)
        label, fold, brightness = data["columns"]
        assert [label["classes"][k] for k in label["codes"]] == names.tolist()
        assert fold["classes"] == ["0", "1", "2"]
        assert brightness["values"] == pytest.approx(X.mean((1, 2)), rel=1e-5)
        assert "<b>" not in page
        assert not re.search(r'(src|href)="?(https?:)?//', page)
        assert data["sheets"][0].startswith("data:image/jpeg;base64,")


SCRIPT = """
<script>
setTimeout(() => {
  const rectangle = map.getBoundingClientRect();
  const at = (i) => ({
    clientX: rectangle.left + (data.x[i] - left) * scale,
    clientY: rectangle.top + (top_ - data.y[i]) * scale,
  });
  document.body.dataset.all = map.dataset.points;
  document.body.dataset.milliseconds = map.dataset.milliseconds;
  map.dispatchEvent(new MouseEvent("mousemove", at(7)));
  const ink7 = document.getElementById("picture").getContext("2d").getImageData(72, 72, 1, 1).data;
  document.body.dataset.center = ink7[0];
  const before = scale;
  map.dispatchEvent(new WheelEvent("wheel", { ...at(7), deltaY: -2000, cancelable: true }));
  document.body.dataset.zoom = scale / before;
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.body.dataset.near = map.dataset.points;
    document.body.dataset.pictures = map.dataset.pictures;
  }));
}, 500);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
def test_page_in_a_browser(tmp_path):
    n, rng = 20_000, np.random.default_rng(0)
    tiles = np.full((n, 16, 16, 3), 40, np.uint8)
    tiles[7] = 250
    columns = MapColumns(
        rng.integers(0, 5, n), None, rng.random(n), [f"folder/<i>{i}.png" for i in range(n)]
    )
    display = EmbeddingDisplay(rng.normal(size=(n, 2)), tiles, columns, np.arange(n))
    path = display.to_html(tmp_path / "map.html")
    path.write_text(path.read_text("utf-8").replace("</body>", SCRIPT + "</body>"), "utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,800", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    seen = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    body = re.search(r"<body([^>]*)>", seen)[1]
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', body))
    assert int(said["all"]) == n
    assert float(said["center"]) > 230
    assert float(said["zoom"]) > 100
    assert 1 <= int(said["near"]) < 400
    assert said["pictures"] == "true"
    card = html.unescape(re.search(r'<div id="text">(.*?)</div></div>', seen, re.DOTALL)[1])
    assert "folder/<i>7.png" in card
    assert f"label: {columns.labels[7]}" in card
    # Fluid: less than a twentieth of a second for a frame of all points.
    assert float(said["milliseconds"]) < 50


class TestMistakesDisplay:
    def test_the_most_confident_come_first(self, digits):
        X, y = digits
        rng = np.random.default_rng(0)
        predicted = rng.dirichlet(np.ones(3), len(y))
        display = MistakesDisplay.from_predictions(X, y, predicted, n_mistakes=5)
        wrong = predicted.argmax(1) != y
        assert wrong[display.rows].all()
        confidence = predicted.max(1)
        assert confidence[display.rows].tolist() == sorted(confidence[wrong])[::-1][:5]
        drawn = [ax for ax in display.axes_.ravel() if ax.images]
        assert len(drawn) == 5
        for ax, i in zip(drawn, display.rows, strict=True):
            title = f"{y[i]} → {predicted[i].argmax()}, {confidence[i]:.0%}"
            assert ax.get_title() == title
            own = np.asarray(Image.fromarray(X[i]).resize((96, 96)), float)
            shown = np.asarray(ax.images[0].get_array()).mean(2)
            assert np.corrcoef(shown.ravel(), own.ravel())[0, 1] > 0.9

    def test_long_names_keep_both_ends(self, digits):
        X, y = digits
        names = [f"pneumothorax, apical, type {k}" for k in range(3)]
        predicted = np.roll(np.eye(3)[y], 1, axis=1)
        labels = np.array(names)[y]
        display = MistakesDisplay.from_predictions(X, labels, predicted, n_mistakes=1)
        i = int(display.rows[0])
        title = display.axes_.ravel()[0].get_title()
        assert title == f"pneumoth...type {y[i]} →\npneumoth...type {(y[i] + 1) % 3}, 100%"

    def test_pictures_in_a_range_that_is_hardly_used_are_said(self, digits):
        X, y = digits
        with pytest.warns(RangeWarning, match="little contrast") as warned:
            MistakesDisplay.from_predictions(X.astype(np.uint16), y, (y + 1) % 3)
        assert warned[0].filename == __file__

    def test_matrix_has_an_image_in_each_cell(self, digits):
        X, y = digits
        predicted = np.where(np.arange(60) % 4 == 0, (y + 1) % 3, y)
        display = MistakesDisplay.from_predictions(X, y, predicted, kind="matrix")
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(y, predicted)
        np.testing.assert_array_equal(display.matrix, matrix)
        assert len(display.axes_.images) == (matrix > 0).sum()
        counts = {text.get_text() for text in display.axes_.texts}
        assert counts == {str(n) for n in matrix[matrix > 0]}
        for image in display.axes_.images:
            left, right, bottom, top = image.get_extent()
            i = display.examples[round((top + bottom) / 2), round((left + right) / 2)]
            assert (y[i], predicted[i]) == (
                round((top + bottom) / 2),
                round((left + right) / 2),
            )

    @pytest.mark.parametrize(("name", "angle"), [("k", 0), ("a rather long name ", 45)])
    def test_names_under_a_matrix_do_not_overlap(self, digits, name, angle):
        X, y = digits
        names = np.array([f"{name}{k}" for k in y])
        display = MistakesDisplay.from_predictions(X, names, names, kind="matrix")
        assert {t.get_rotation() for t in display.axes_.get_xticklabels()} == {angle}

    def test_forms_of_predictions(self, digits):
        X, y = digits
        X, names = X[y < 2], np.array(["b", "a"])[y[y < 2]]
        scores = np.linspace(-1, 1, len(names))
        display = MistakesDisplay.from_predictions(X, names, scores)
        # The score is that of the second class in order, "b".
        wrong = np.where(scores > 0, "b", "a") != names
        assert set(display.rows) <= set(np.flatnonzero(wrong))
        assert display.predictions.unit == "score"
        with pytest.raises(ValueError, match="3 columns, and there are 2 classes"):
            MistakesDisplay.from_predictions(X, names, np.zeros((len(names), 3)))
        with pytest.raises(ValueError, match="Pass both columns of predict_proba"):
            MistakesDisplay.from_predictions(X, names, np.linspace(0, 1, len(names)))
        with pytest.raises(ValueError, match="kind='table'"):
            MistakesDisplay.from_predictions(X, names, scores, kind="table")
        none = MistakesDisplay.from_predictions(X, names, names)
        assert none.axes_.flat[0].get_title() == "no mistakes"


class TestLabelIssues:
    def test_flipped_labels_come_first(self):
        pytest.importorskip("cleanlab")
        from sklearn.datasets import load_digits
        from sklearn.model_selection import cross_val_predict

        X, y = load_digits(return_X_y=True)
        rng = np.random.default_rng(0)
        flipped = rng.choice(len(y), len(y) // 20, replace=False)
        given = y.copy()
        given[flipped] = (y[flipped] + rng.integers(1, 10, len(flipped))) % 10
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        p = cross_val_predict(head, X, given, method="predict_proba", cv=3)
        issues = label_issues(given, p)
        first = issues.order[: len(flipped)]
        assert np.isin(flipped, first).mean() >= 0.8
        assert (issues.suggested[flipped] == y[flipped]).mean() > 0.8
        assert np.isin(flipped, np.flatnonzero(issues.is_issue)).mean() > 0.8
        assert (np.diff(issues.quality[issues.order]) >= 0).all()

    def test_a_class_without_images(self):
        """cleanlab 288: probabilities of a class that no label names."""
        pytest.importorskip("cleanlab")
        p = np.array([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])
        issues = label_issues(["a", "a", "a", "c"], p, classes=["a", "b", "c"])
        assert issues.suggested.tolist() == ["b", "a", "c", "a"]
        assert set(issues.order[:3]) == {0, 2, 3}
        with pytest.raises(ValueError, match="3 columns, and there are 2 classes"):
            label_issues(["a", "a", "a", "c"], p)

    def test_scores_are_refused(self):
        pytest.importorskip("cleanlab")
        with pytest.raises(ValueError, match="rows are no probabilities"):
            label_issues([0, 1], [[-1.0, 1.0], [2.0, 3.0]])

    def test_without_cleanlab(self, monkeypatch):
        import sys

        from sklearn_featx.exceptions import MissingDependencyError

        monkeypatch.setitem(sys.modules, "cleanlab", None)
        monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
        with pytest.raises(MissingDependencyError, match=r"sklearn-featx\[cleanlab\]"):
            label_issues([0, 1], [[0.5, 0.5], [0.5, 0.5]])


class TestNearDuplicates:
    def test_copies_are_found_and_kept_together(self, photographs, digits, tmp_path):
        china, flower = (Image.fromarray(p) for p in photographs)
        parts = [p.crop((x, y, x + 213, y + 213))
                 for p in (china, flower) for x in (0, 213, 427) for y in (0, 213)]  # fmt: skip
        parts[3].save(tmp_path / "copy.jpg", quality=60)
        copies = [
            Image.open(tmp_path / "copy.jpg"),
            parts[5].resize((150, 150)),
            parts[5].crop((4, 4, 209, 209)),
        ]
        found = near_duplicates(small(image_size=64), parts + copies)
        assert found.threshold == 0.95
        together = [(3, 12), (5, 13), (5, 14), (13, 14)]
        assert sorted(map(tuple, found.pairs.tolist())) == together
        assert (np.diff(found.similarity) <= 0).all()
        assert len(set(found.groups)) == 12
        y = np.zeros(15)
        for train, test in GroupKFold(3).split(y, y, found.groups):
            assert not set(found.groups[train]) & set(found.groups[test])

    @pytest.mark.parametrize("rows_per_block", [1, 2, 5, 100])
    def test_pairs_are_found_in_all_blocks(self, rows_per_block, monkeypatch):
        monkeypatch.setattr(_near_duplicates, "_ROWS_PER_BLOCK", rows_per_block)
        directions = np.eye(7)[[0, 1, 2, 0, 3, 2, 0]]
        pairs, similarity = _near_duplicates._pairs(directions, 0.9)
        assert sorted(map(tuple, pairs.tolist())) == [(0, 3), (0, 6), (2, 5), (3, 6)]
        assert similarity.tolist() == [1] * 4

    def test_unreadable_images_are_groups_of_their_own(self, digit_files):
        """fastdup 52: files that cannot be read do not end the search."""
        paths, _ = digit_files
        X = [paths[0], "gone.png", paths[3], paths[0], "gone too.png"]
        with pytest.warns(UserWarning, match="gone"):
            found = near_duplicates(small(on_error="nan"), X)
        assert found.pairs.tolist() == [[0, 3]]
        assert found.groups.tolist() == [0, 1, 2, 0, 3]

    def test_equal_images_are_one_group(self, digits):
        X = np.repeat(digits[0][:1], 4, axis=0)
        found = near_duplicates(small(), X, threshold=1)
        assert set(found.groups) == {0}
        assert len(found.pairs) == 6
        assert near_duplicates(small(), X[:1]).groups.tolist() == [0]
        with pytest.raises(ValueError, match="threshold=0"):
            near_duplicates(small(), X, threshold=0)


def test_a_map_checks_lengths_first(digits):
    X, y = digits[0][:5], digits[1][:5]
    with pytest.raises(ValueError, match=r"^y has 3 entries, and X has 5 images"):
        EmbeddingDisplay.from_estimator(small(), X, y[:3])
    with pytest.raises(ValueError, match=r"^columns\['size'\] has 6 entries, and X has 5 images"):
        EmbeddingDisplay.from_estimator(small(), X, y, columns={"size": range(6)})
    with pytest.raises(ValueError, match="X: 1 of 1 images can be read, and a map by PCA"):
        EmbeddingDisplay.from_estimator(small(), X[:1])


@pytest.mark.parametrize("shape", [(4, 2), (4,)])
def test_predictions_of_nan_are_refused(digits, shape):
    with pytest.raises(ValueError, match="predicted, row 0: NaN, in 4 of 4 rows"):
        MistakesDisplay.from_predictions(digits[0][:4], [0, 1, 0, 1], np.full(shape, np.nan))
    some = np.eye(2)[[0, 1, 0, 1]]
    some[2] = np.nan
    with pytest.raises(ValueError, match="predicted, row 2: NaN, in 1 of 4 rows"):
        MistakesDisplay.from_predictions(digits[0][:4], [0, 1, 0, 1], some)
