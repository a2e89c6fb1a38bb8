"""The command look: a page about predictions."""

import os
import re
import sys

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    GradualUnfreezing,
    ImageReader,
    Preprocessing,
    PretrainedFeatureExtractor,
)
from sklearn_featx.cli._look import load_model
from sklearn_featx.cli._main import main

skops = pytest.importorskip("skops.io")


@pytest.fixture(scope="module")
def saved(digit_files, tmp_path_factory):
    """A folder with a model as skops and joblib, and images."""
    paths, y = digit_files
    extractor = PretrainedFeatureExtractor(layer="blocks.2", image_size=32, cache=False)
    names = np.array(["zero", "<one>", "two"])[y]
    model = make_pipeline(extractor, LogisticRegression()).fit(paths, names)
    folder = tmp_path_factory.mktemp("look")
    skops.dump(model, folder / "model.skops")
    joblib.dump(model, folder / "model.joblib")
    (folder / "new").mkdir()
    for i in range(4):
        Image.open(paths[i]).save(folder / "new" / f"{i} & more.png")
    return folder, model, paths


def test_page_has_predictions_maps_and_neighbors(saved, capsys):
    folder, model, _ = saved
    page = folder / "report.html"
    command = ["look", str(folder / "model.skops"), str(folder / "new"), "-o", str(page)]
    assert main([*command, "--neighbors", "2"]) == 0
    text = page.read_text("utf-8")
    articles = re.findall(r"<article>(.*?)</article>", text, re.DOTALL)
    assert len(articles) == 4
    escaped = {"zero": "zero", "<one>": "&lt;one&gt;", "two": "two"}
    for i, article in enumerate(articles):
        path = str(folder / "new" / f"{i} & more.png")
        said = model.predict([path])[0]
        score = model.decision_function([path])[0].max()  # of the predicted class
        assert f"<b>{escaped[said]}</b>" in article
        assert f"{score:+.3g}" in article
        assert path.replace("&", "&amp;") in article
        assert article.count('<img src="data:image/jpeg;base64,') == 4
    assert not re.search(r'(src|href)="?(https?:)?//', text)
    assert "<script" not in text


def test_neighbors_among_known_images(saved, digit_files):
    folder, _, paths = saved
    page, known = folder / "known.html", paths[0].rpartition("/class")[0]
    command = ["look", str(folder / "model.skops"), str(folder / "new"), "-o", str(page)]
    assert main([*command, "--known", known, "--neighbors", "1"]) == 0
    # Each image is a copy of a known one.
    articles = page.read_text("utf-8").split("<article>")[1:]
    assert all(f"{paths[i]}, " in article for i, article in enumerate(articles))


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_unreadable_images_are_named(saved, tmp_path, capsys, on_error):
    _, model, paths = saved
    model = clone(model).set_params(
        pretrainedfeatureextractor__on_error=on_error, logisticregression__max_iter=1000
    )
    skops.dump(model.fit(paths[:20], np.arange(20) % 2), tmp_path / "model.skops")
    (tmp_path / "new").mkdir()
    Image.open(paths[0]).save(tmp_path / "new" / "fine.png")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    page = tmp_path / "page.html"
    command = ["look", str(tmp_path / "model.skops"), str(tmp_path / "new"), "-o", str(page)]
    assert main(command) == 3
    assert "broken.png" in capsys.readouterr().err
    text = page.read_text("utf-8")
    assert text.count("<article>") == 2
    assert text.index("fine.png") < text.index("<b>unreadable</b>") < text.index("broken.png")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode there")
def test_names_that_are_not_unicode_have_escapes(saved, tmp_path):
    folder, _, paths = saved
    new = tmp_path / "new"
    new.mkdir()
    for name in (b"bad\xff.png", b"fine.png"):
        Image.open(paths[0]).save(new / os.fsdecode(name))
    page = tmp_path / "page.html"
    assert main(["look", str(folder / "model.skops"), str(new), "-o", str(page)]) == 0
    assert "bad\\xff.png" in page.read_text("utf-8")


def test_an_unreadable_known_image_is_an_exit_code_too(saved, tmp_path, capsys):
    folder, _, paths = saved
    Image.open(paths[0]).save(tmp_path / "fine.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    page = ["-o", str(tmp_path / "page.html")]
    command = ["look", str(folder / "model.skops"), str(folder / "new"), *page]
    assert main([*command, "--known", str(tmp_path)]) == 3
    assert "1 of 2 images could not be read" in capsys.readouterr().err


def test_no_readable_image_at_all(saved, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    page = ["-o", str(tmp_path / "page.html")]
    assert main(["look", str(saved[0] / "model.skops"), str(tmp_path), *page]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_advice_about_the_reader_is_of_the_model(saved, tmp_path, capsys):
    frames = [Image.effect_noise((40, 40), 50 + i) for i in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    page = ["-o", str(tmp_path / "page.html")]
    assert main(["look", str(saved[0] / "model.skops"), str(tmp_path), *page, "-q"]) == 0
    assert "ImageReader(frames=0) in the model confirms this" in capsys.readouterr().err


def test_pickles_are_loaded_only_when_they_are_trusted(saved, capsys):
    folder, _, _ = saved
    page = folder / "pickle.html"
    command = ["look", str(folder / "model.joblib"), str(folder / "new"), "-o", str(page)]
    assert main(command) == 2
    assert "can run any code" in capsys.readouterr().err
    assert not page.exists()
    assert main([*command, "--trust-pickle"]) == 0
    assert page.exists()


def test_what_cannot_be_loaded_is_refused(saved, capsys, tmp_path):
    folder, _, _ = saved
    new = str(folder / "new")
    page = ["-o", str(tmp_path / "page.html")]
    assert main(["look", "nowhere.skops", new, *page]) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "model.h5").write_bytes(b"")
    assert main(["look", str(tmp_path / "model.h5"), new, *page]) == 2
    assert "must end in .skops or .joblib" in capsys.readouterr().err
    assert main(["look", str(folder / "model.skops"), new, "-o", str(tmp_path / "page.pdf")]) == 2
    assert "must end in .html" in capsys.readouterr().err
    skops.dump(Image.Image, tmp_path / "foreign.skops")
    assert main(["look", str(tmp_path / "foreign.skops"), new, *page]) == 2
    assert "types of other packages" in capsys.readouterr().err


@pytest.mark.parametrize(("suffix", "options"), [("skops", []), ("joblib", ["--trust-pickle"])])
def test_a_damaged_model_is_named(suffix, options, saved, capsys, tmp_path):
    model = tmp_path / f"model.{suffix}"
    model.write_bytes(b"\x80\x04no model")
    assert main(["look", str(model), str(saved[0]), "-o", str(tmp_path / "p.html"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "MODEL: " in lines[0]
    assert f"model.{suffix}' cannot be loaded (" in lines[0]


def test_a_model_whose_network_is_beside_other_columns_is_refused(saved, capsys, tmp_path):
    folder, model, paths = saved
    columns = ColumnTransformer([("images", model[0], [0]), ("size", "passthrough", [1])])
    table = np.array([[path, 1.0] for path in paths[:4]], dtype=object)
    beside = make_pipeline(columns, clone(model[-1])).fit(table, [0, 1, 0, 1])
    joblib.dump(beside, tmp_path / "model.joblib")
    page = tmp_path / "page.html"
    command = ["look", str(tmp_path / "model.joblib"), str(folder / "new"), "-o", str(page)]
    assert main([*command, "--trust-pickle"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sklearn-featx: error: MODEL: X=[")
    assert "the model takes a table with columns beside the images" in error
    assert len(error) <= 300
    assert error.count("\n") == 1
    assert not page.exists()


def test_a_model_without_scores_is_refused(saved, capsys, tmp_path):
    folder, model, _ = saved
    skops.dump(model[0], tmp_path / "model.skops")
    command = ["look", str(tmp_path / "model.skops"), str(folder / "new")]
    assert main([*command, "-o", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sklearn-featx: error: MODEL: ")
    assert "there is no score to look into" in error


def test_other_errors_are_not_of_the_model(saved, monkeypatch, tmp_path):
    def raises(*_):
        raise TypeError("an operand")

    folder, _, _ = saved
    monkeypatch.setattr("sklearn_featx.inspection.report_page", raises)
    command = ["look", str(folder / "model.skops"), str(folder / "new")]
    with pytest.raises(TypeError, match="an operand"):
        main([*command, "-o", str(tmp_path / "page.html")])


def test_a_model_with_objects_of_this_package_is_loaded(saved, tmp_path):
    folder, _, paths = saved
    extractor = PretrainedFeatureExtractor(
        layer="blocks.2", preprocessing=Preprocessing(crop_mode="squash"), reader=ImageReader()
    ).set_params(image_size=32, cache=False)
    classifier = FineTuneClassifier(callbacks=[GradualUnfreezing()])
    model = make_pipeline(extractor, LogisticRegression(max_iter=1000))
    model.fit(paths, np.arange(len(paths)) % 2)
    for i, saved_object in enumerate((model, classifier, FineTuneRegressor())):
        skops.dump(saved_object, tmp_path / f"{i}.skops")
        assert type(load_model(tmp_path / f"{i}.skops")) is type(saved_object)
    arguments = ["look", str(tmp_path / "0.skops"), str(folder / "new"), "-q"]
    assert main([*arguments, "-o", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("options", [[], ["--known", "nowhere"]])
def test_a_folder_that_does_not_exist_is_named_by_its_argument(saved, options, capsys, tmp_path):
    folder, _, _ = saved
    images = str(folder / "new") if options else "nowhere"
    page = ["-o", str(tmp_path / "page.html")]
    assert main(["look", str(folder / "model.skops"), images, *page, *options]) == 2
    argument = "--known" if options else "FOLDER"
    assert f"error: {argument}: there is no folder 'nowhere'" in capsys.readouterr().err


def test_a_folder_for_the_page_is_checked_before_any_work(capsys):
    assert main(["look", "no.skops", "nowhere", "-o", "no folder/page.html"]) == 2
    assert "--output: there is no folder 'no folder'" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["-1", "some"])
def test_a_wrong_number_of_neighbors_is_a_usage_error(count, capsys):
    with pytest.raises(SystemExit):
        main(["look", "m.skops", "new", "-o", "page.html", f"--neighbors={count}"])
    assert f"--neighbors: '{count}' is no number from 0" in capsys.readouterr().err
