"""The command extract, on real files: what it finds, what it writes, and how it fails."""

import csv
import io
import os
import re
import shutil
import sys
import tarfile
import zipfile

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sklearn_featx
from sklearn_featx import PretrainedFeatureExtractor
from sklearn_featx.cli._folder import find_images
from sklearn_featx.cli._main import main
from sklearn_featx.cli._output import choose_writer
from sklearn_featx.exceptions import InputError
from sklearn_featx.images import image_suffixes

SMALL = ["--image-size", "64"]
NAMES = [
    "Äpfel rot/Boskoop 1.jpg",
    "Äpfel rot/deep/er/Gala.JPEG",
    "梨/二.png",
    "at the top.jpg",
]


def one_line(capsys):
    """The one line on standard error; nothing may be on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sklearn-featx: error: ")
    return err


def test_npz_holds_features_paths_classes_and_names(pictures, expected, tmp_path, capsys):
    output = tmp_path / "features.npz"
    assert main(["extract", str(pictures), "-o", str(output), *SMALL]) == 0
    with np.load(output, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["classes", "errors", "feature_names", "features", "paths"]
        np.testing.assert_array_equal(arrays["features"], expected)
        assert arrays["features"].dtype == np.float32
        assert arrays["paths"].tolist() == sorted(NAMES, key=lambda name: name.split("/"))
        assert dict(zip(arrays["paths"], arrays["classes"], strict=True)) == {
            "Äpfel rot/Boskoop 1.jpg": "Äpfel rot",
            "Äpfel rot/deep/er/Gala.JPEG": "Äpfel rot",
            "梨/二.png": "梨",
            "at the top.jpg": "",
        }
        assert arrays["feature_names"][0] == "efficientnet_lite0_0000"
    out, err = capsys.readouterr()
    assert "4 images in 2 classes, 1280 features each" in out
    assert "images/s" in err


def test_csv_gives_the_same_numbers_back(pictures, expected, tmp_path):
    output = tmp_path / "features.csv"
    assert main(["extract", str(pictures), "-o", str(output), "--quiet", *SMALL]) == 0
    with output.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["path", "class", "error", "efficientnet_lite0_0000"]
    assert [row[0] for row in rows] == [path.as_posix() for path in find_images(pictures).paths]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows], dtype=np.float32), expected)


def test_parquet_gives_the_same_numbers_back(pictures, expected, tmp_path):
    output = tmp_path / "features.parquet"
    assert main(["extract", str(pictures), "-o", str(output), "--quiet", *SMALL]) == 0
    frame = pd.read_parquet(output)
    assert frame.columns[:4].tolist() == ["path", "class", "error", "efficientnet_lite0_0000"]
    np.testing.assert_array_equal(frame.iloc[:, 3:].to_numpy(), expected)


def test_quiet_is_quiet(pictures, tmp_path, capsys):
    assert main(["extract", str(pictures), "-o", str(tmp_path / "f.npz"), "-q", *SMALL]) == 0
    assert capsys.readouterr() == ("", "")


def test_options_reach_the_extractor(pictures, tmp_path):
    output = tmp_path / "features.npz"
    options = [
        "--layer", "blocks.3", "--layer", "blocks.4", "--pooling", "max", "--image-size", "48x64",
        "--normalize", "--batch-size", "2", "--n-jobs", "2", "--device", "cpu", "--quiet",
    ]  # fmt: skip
    assert main(["extract", str(pictures), "-o", str(output), *options]) == 0
    features = PretrainedFeatureExtractor(
        layer=["blocks.3", "blocks.4"], pooling="max", image_size=(48, 64), normalize=True
    ).transform([str(pictures / path) for path in find_images(pictures).paths])
    with np.load(output, allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["features"], features, atol=1e-6)
        assert arrays["feature_names"][0] == "efficientnet_lite0_blocks.3_max_00"


def test_random_weights_are_asked_for_by_none(pictures, tmp_path, capsys):
    arguments = ["extract", str(pictures), "-o", str(tmp_path / "f.npz"), "--quiet", *SMALL]
    assert main([*arguments, "--weights", "none"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "random weights" in line]
    assert line.startswith("sklearn-featx: warning: ")


def test_links_are_followed_where_that_is_asked_for_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").touch()
    (tmp_path / "images").mkdir()
    try:
        (tmp_path / "images" / "link").symlink_to(tmp_path / "real")
        (tmp_path / "real" / "up").symlink_to(tmp_path / "images")
        (tmp_path / "images" / "self").symlink_to(tmp_path / "images")
        (tmp_path / "images" / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    except OSError:
        pytest.skip("no links here")
    found, _ = find_images(tmp_path / "images", follow_links=True)
    assert [path.as_posix() for path in found] == ["b.jpg", "link/a.jpg"]
    with pytest.raises(InputError, match="--follow-links"):
        find_images(tmp_path / "images")


# 40 x 40 red pixels in the Quite OK Image Format, which Pillow reads longer than it writes it: a
# heading, one color, runs of 62 and 49 pixels, the end.
RED_QOI = (
    (b"qoif" + bytes([0, 0, 0, 40, 0, 0, 0, 40, 3, 0]) + b"\xfe\xff\0\0" + 25 * b"\xfd" + b"\xf0")
    + bytes(7)
    + b"\1"
)


class TestWhatIsLeftOut:
    @pytest.fixture
    def mixed(self, tmp_path):
        """A folder of 16 entries, 6 of them files that Pillow reads."""
        picture = Image.new("RGB", (40, 40), "red")
        folder = tmp_path / "mixed"
        folder.mkdir()
        for name in ("a.tga", "b.PNG", "d.dib", "e.jpg"):
            picture.save(folder / name)
        (folder / "c.qoi").write_bytes(RED_QOI)
        picture.save(folder / "f.mpo", "JPEG")
        for name in ("no suffix", "README", "a.nc", "b.nc", "notes.txt", "film.mpg", "x.eps"):
            (folder / name).write_bytes(b"no image")
        (folder / ".DS_Store").touch()
        (folder / ".cache").mkdir()
        (folder / "link.png").symlink_to(folder / "b.PNG")
        return folder

    def test_every_suffix_that_pillow_reads_is_taken(self, mixed):
        names = [path.name for path in find_images(mixed).paths]
        assert names == ["a.tga", "b.PNG", "c.qoi", "d.dib", "e.jpg", "f.mpo"]

    def test_the_others_are_named_by_kind_in_one_line(self, mixed, tmp_path, capsys):
        arguments = ["extract", str(mixed), "-o", str(tmp_path / "f.npz"), *SMALL]
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert "6 images" in out
        (line,) = [line for line in err.splitlines() if "skipped" in line]
        for kind in ("hidden 2", "links 1 (--follow-links", "no suffix 2"):
            assert kind in line
        assert "other suffixes 5 (.nc 2, ." in line
        assert all(suffix in line for suffix in (".txt", ".mpg", ".eps"))

    def test_every_entry_is_taken_or_counted(self, mixed):
        for name in ("scan.dcm", "photo.heic", "film.avif", "z.unknown"):
            (mixed / name).write_bytes(b"no image")
        taken, skipped = find_images(mixed)
        counts = re.sub(r"\([^)]*\)", "", skipped)
        n_skipped = sum(int(number) for number in re.findall(r" (\d+)", counts))
        assert len(taken) + n_skipped == len(list(mixed.iterdir()))
        assert ("photo.heic" in map(str, taken)) == (".heic" in image_suffixes())
        assert "scan.dcm" in map(str, taken)
        assert "z.unknown" not in map(str, taken)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
    def test_a_pipe_is_not_waited_for(self, mixed):
        os.mkfifo(mixed / "1.2.840")
        taken, _ = find_images(mixed)
        assert "1.2.840" not in map(str, taken)

    def test_where_nothing_is_left_out_there_is_no_word(self, tmp_path, capsys):
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        output = tmp_path / "out" / "f.npz"
        output.parent.mkdir()
        assert main(["extract", str(tmp_path), "-o", str(output), *SMALL]) == 0
        assert "skipped" not in capsys.readouterr().err

    def test_a_folder_without_images_says_what_is_there(self, tmp_path):
        with pytest.raises(InputError, match="It is empty"):
            find_images(tmp_path)
        for i in range(9):
            (tmp_path / f"{i}.{i}{'x' * 200}").touch()
        with pytest.raises(InputError, match=r"Skipped: other suffixes 9 .*\.\.\.") as error:
            find_images(tmp_path)
        assert "\n" not in str(error.value)

    def test_a_folder_that_cannot_be_listed_is_counted(self, mixed, monkeypatch):
        listed = os.scandir

        def refuse(path):
            if os.fspath(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return listed(path)

        (mixed / "locked").mkdir()
        monkeypatch.setattr(os, "scandir", refuse)
        assert "unreadable folders (Permission denied) 1" in find_images(mixed).skipped


class TestUnreadable:
    @pytest.fixture
    def folder(self, pictures, tmp_path):
        """The pictures, and a file that is none."""
        folder = tmp_path / "pictures"
        shutil.copytree(pictures, folder)
        (folder / "a bad one.jpg").write_bytes(b"no image")
        return folder

    @pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
    def test_it_is_a_row_of_nan_a_reason_a_line_and_an_exit_code(
        self, folder, expected, tmp_path, suffix, capsys
    ):
        output = tmp_path / f"f{suffix}"
        assert main(["extract", str(folder), "-o", str(output), *SMALL]) == 3
        out, err = capsys.readouterr()
        assert out.startswith("4 of 5 images in 2 classes, 1280 features each: ")
        (line,) = [line for line in err.splitlines() if "a bad one" in line]
        assert line.startswith("sklearn-featx: 'a bad one.jpg': the content is no image")
        assert "sklearn/base.py" not in err
        assert "warning" not in err
        paths, errors, features = self.read(output)
        bad = paths == "a bad one.jpg"
        assert [bool(error) for error in errors] == bad.tolist()
        assert np.isnan(features[bad]).all()
        np.testing.assert_allclose(features[~bad], expected, rtol=1e-4, atol=1e-5)

    def read(self, output):
        if output.suffix == ".npz":
            with np.load(output) as file:
                return file["paths"], file["errors"], file["features"]
        read = pd.read_csv if output.suffix == ".csv" else pd.read_parquet
        frame = read(output)
        columns = frame["path"].to_numpy(), frame["error"].fillna("").to_numpy()
        return *columns, frame.iloc[:, 3:].to_numpy(np.float32)

    def test_the_first_ends_the_run_where_that_is_asked_for(self, folder, tmp_path, capsys):
        output = tmp_path / "f.npz"
        arguments = ["extract", str(folder), "-o", str(output), "--quiet", *SMALL]
        assert main([*arguments, "--on-error", "raise"]) == 2
        assert "a bad one.jpg" in one_line(capsys)
        assert not output.exists()

    def test_a_check_reads_all_and_computes_nothing(self, folder, capsys, trunk_rows):
        assert main(["extract", str(folder), "--check"]) == 3
        out, err = capsys.readouterr()
        assert out == "4 of 5 images are readable\n"
        assert "sklearn-featx: 'a bad one.jpg': the content is no image" in err
        (folder / "a bad one.jpg").unlink()
        assert main(["extract", str(folder), "--check", "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")
        assert trunk_rows == []

    def test_volumes_of_a_folder(self, tmp_path, capsys):
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.Nifti1Image(np.zeros((6, 5, 2), np.uint8), np.eye(4))
        for name in ("a.nii", "b.nii.gz"):
            nibabel.save(image, tmp_path / name)
        (tmp_path / "bvals.txt.gz").write_bytes(b"")
        assert main(["extract", str(tmp_path), "--check", "--frames", "1"]) == 0
        captured = capsys.readouterr()
        assert "2 images are readable" in captured.out
        assert "skipped: other suffixes 1 (.gz 1)" in captured.err
        assert main(["extract", str(tmp_path), "--check", "-q"]) == 3
        assert "Pass --frames all with --bag-pooling mean" in capsys.readouterr().err

    def test_a_check_reads_every_frame_of_a_bag(self, tmp_path, capsys):
        pages = [Image.effect_noise((9, 9), 50 + i) for i in range(3)]
        file = io.BytesIO()
        pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
        file.seek(0)
        with Image.open(file) as opened:
            opened.seek(2)
            start, size = opened.tag_v2[273][0], opened.tag_v2[279][0]
        damaged = bytearray(file.getvalue())
        damaged[start : start + size] = b"\xff" * size
        (tmp_path / "a.tif").write_bytes(file.getvalue())
        (tmp_path / "b.tif").write_bytes(damaged)
        arguments = ["extract", str(tmp_path), "--check", "--n-jobs", "-1"]
        assert main([*arguments, "--frames", "all", "--bag-pooling", "mean"]) == 3
        assert "sklearn-featx: 'b.tif': image 2 of 3: " in capsys.readouterr().err
        assert main([*arguments, "--quiet"]) == 0

    def test_the_bar_is_drawn_once_and_reaches_100_percent(self, folder, tmp_path, capsys):
        assert main(["extract", str(folder), "-o", str(tmp_path / "f.npz"), *SMALL]) == 3
        err = capsys.readouterr().err
        bars = [line for line in err.split("\n") if "images/s" in line]
        assert len(bars) == 1
        assert "100%" in bars[0].split("\r")[-1]
        assert "5/5" in bars[0].split("\r")[-1]
        assert "rows are" not in err


class TestSources:
    def extract(self, tmp_path, *arguments, code=0):
        output = tmp_path / "f.npz"
        assert main(["extract", "-o", str(output), "--quiet", *SMALL, *arguments]) == code
        with np.load(output) as file:
            return file["features"], file["paths"].tolist()

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
    def test_a_column_of_a_table(self, pictures, expected, tmp_path, suffix):
        paths = [path.as_posix() for path in find_images(pictures).paths]
        frame = pd.DataFrame({"photo": paths, "label": range(len(paths))})
        table = tmp_path / f"table{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(table)
        else:
            separator = "," if suffix == ".csv" else "\t"
            frame.to_csv(table, sep=separator, index=False, encoding="utf-8-sig")
        options = ["--column", "photo", "--root", str(pictures)]
        features, names = self.extract(tmp_path, str(table), *options)
        np.testing.assert_array_equal(features, expected)
        assert names == paths

    def test_paths_of_a_table_start_at_its_folder(self, pictures, expected, tmp_path):
        folder = tmp_path / "set"
        shutil.copytree(pictures, folder)
        paths = [path.as_posix() for path in find_images(folder).paths]
        (folder / "one column.csv").write_text("\n".join(["file", *paths]), encoding="utf-8")
        features, _ = self.extract(tmp_path, str(folder / "one column.csv"))
        np.testing.assert_array_equal(features, expected)

    def test_an_empty_cell_is_an_unreadable_row(self, pictures, tmp_path):
        (tmp_path / "t.csv").write_text("a,b\n1,at the top.jpg\n2,\n")
        options = [str(tmp_path / "t.csv"), "--column", "b", "--root", str(pictures)]
        features, names = self.extract(tmp_path, *options, code=3)
        assert np.isnan(features).any(axis=1).tolist() == [False, True]
        # A row without a path has its number, from 0.
        assert names == ["at the top.jpg", "row 1"]

    @pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
    def test_paths_on_standard_input(self, pictures, expected, tmp_path, monkeypatch, separator):
        paths = [str(pictures / path) for path in find_images(pictures).paths]
        content = separator.join([*paths, ""]).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        features, names = self.extract(tmp_path, "-")
        np.testing.assert_array_equal(features, expected)
        assert names == paths

    def test_the_values_of_black_and_white(self, tmp_path):
        values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 4096
        Image.fromarray(values).save(tmp_path / "a.png")
        features, _ = self.extract(tmp_path, str(tmp_path), "--value-range", "0", "4095")
        reader = sklearn_featx.ImageReader(value_range=(0, 4095))
        extractor = PretrainedFeatureExtractor(image_size=64, reader=reader)
        np.testing.assert_array_equal(features, extractor.transform([tmp_path / "a.png"]))

    @pytest.mark.parametrize("option", ["1", "-1", "all", "0:2", "::2", "-2:"])
    def test_frames_of_an_animation(self, tmp_path, option):
        colors = [Image.new("RGB", (64, 64), color) for color in ("red", "blue", "green")]
        colors[0].save(tmp_path / "a.tif", save_all=True, append_images=colors[1:])
        of_python = {
            "1": 1, "-1": -1, "all": "all", "0:2": slice(0, 2), "::2": slice(None, None, 2),
            "-2:": slice(-2, None),
        }  # fmt: skip
        frames = of_python[option]
        pooling = None if isinstance(frames, int) else "mean"
        words = [f"--frames={option}", *(["--bag-pooling", "mean"] if pooling else [])]
        features, _ = self.extract(tmp_path, str(tmp_path), *words)
        reader = sklearn_featx.ImageReader(frames=frames, bag_pooling=pooling)
        extractor = PretrainedFeatureExtractor(image_size=64, reader=reader)
        np.testing.assert_array_equal(features, extractor.transform([tmp_path / "a.tif"]))

    @pytest.mark.parametrize("option", ["each", "0,2,4"])
    def test_channels_of_a_stack(self, tmp_path, option):
        tifffile = pytest.importorskip("tifffile")
        stack = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
        metadata = {"axes": "CYX"}
        tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata=metadata)
        features, _ = self.extract(tmp_path, str(tmp_path), "--channels", option)
        channels = option if option == "each" else [0, 2, 4]
        reader = sklearn_featx.ImageReader(channels=channels)
        extractor = PretrainedFeatureExtractor(image_size=64, reader=reader, cache=False)
        np.testing.assert_array_equal(features, extractor.fit_transform(stack[np.newaxis]))

    @pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
    def test_an_archive(self, pictures, expected, tmp_path, suffix):
        archive = tmp_path / f"photos.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(archive, "w") as file:
                for path in sorted(pictures.rglob("*")):
                    file.write(path, path.relative_to(pictures))
        else:
            with tarfile.open(archive, f"w:{suffix[4:]}") as file:
                file.add(pictures, "")
        features, names = self.extract(tmp_path, str(archive))
        np.testing.assert_array_equal(features, expected)
        assert names == [path.as_posix() for path in find_images(pictures).paths]
        with np.load(tmp_path / "f.npz") as file:
            assert set(file["classes"]) == {"", "Äpfel rot", "梨"}

    def test_a_folder_or_file_of_an_archive(self, pictures, tmp_path, capsys):
        archive = tmp_path / "photos.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name in ("a/1.png", "a/2.png", "b/3.png"):
                file.write(next(pictures.rglob("*.png")), name)
        for inside, n_images in [("a", 2), ("a/2.png", 1)]:
            assert main(["extract", f"zip://{inside}::{archive}", "--check"]) == 0
            noun = "image is" if n_images == 1 else "images are"
            assert capsys.readouterr().out == f"{n_images} {noun} readable\n"

    def test_a_folder_of_a_bucket(self, pictures, expected, tmp_path, capsys):
        files = fsspec.filesystem("memory")
        try:
            for path in pictures.rglob("*.*"):
                if path.is_file():
                    name = path.relative_to(pictures).as_posix()
                    files.pipe_file(f"/bucket/set/{name}", path.read_bytes())
            files.pipe_file("/bucket/set 2/other.jpg", b"of another folder")
            features, names = self.extract(tmp_path, "memory://bucket/set")
            np.testing.assert_array_equal(features, expected)
            assert names == [path.as_posix() for path in find_images(pictures).paths]
            assert main(["extract", "memory://bucket/set/", "--check"]) == 0
            out, err = capsys.readouterr()
            assert out == "4 images are readable\n"
            assert "skipped: hidden 2, other suffixes 1 (.txt 1)" in err
        finally:
            files.rm("/bucket", recursive=True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["https://host/folder"], "a web server lists no files"),
            (["nothing://bucket"], "the scheme 'nothing' is unknown"),
            (["memory://bucket/none"], "no image file in 'memory://bucket/none'"),
            (["broken.zip"], "broken.zip': the file cannot be fetched: BadZipFile"),
            (["t.csv"], "--column is needed: 't.csv' has the columns photo, label"),
            (["t.csv", "--column", "image"], "'image' is not in the table: 't.csv' has"),
            (["empty.csv", "--column", "a"], "'empty.csv' has no rows"),
            (["broken.parquet", "--column", "a"], "'broken.parquet' is no table"),
            ([".", "--column", "a"], "--column has no effect: '.' is no table"),
            (["a.jpg"], "'a.jpg' is neither a folder nor a table"),
            (["-"], "no paths on standard input"),
        ],
    )
    def test_wrong_sources_are_one_line(self, arguments, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
        (tmp_path / "t.csv").write_text("photo,label\na.jpg,1\n")
        (tmp_path / "empty.csv").write_text("a,b\n")
        (tmp_path / "broken.parquet").write_bytes(b"no parquet")
        (tmp_path / "broken.zip").write_bytes(b"no zip")
        (tmp_path / "a.jpg").touch()
        assert main(["extract", *arguments, "-o", "f.npz"]) == 2
        line = one_line(capsys)
        assert message in line
        assert len(line) <= 300


@pytest.mark.parametrize("text", ["3", "{", '["geheim"]'])
def test_wrong_storage_options_are_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as end:
        main(["extract", ".", "--check", "--storage-options", text])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "is no JSON object" in err
    assert "geheim" not in err


def test_ways_to_be_faster(pictures, expected, tmp_path):
    arguments = ["extract", str(pictures), "-o", str(tmp_path / "f.npz"), "--quiet", *SMALL]
    assert main([*arguments, "--fast", "--engine", "torch", "--precision", "bfloat16"]) == 0
    with np.load(tmp_path / "f.npz") as file:
        given = file["features"]
    cosines = (given * expected).sum(1) / np.linalg.norm(given, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.98).all()
    assert not np.array_equal(given, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "nowhere", "-o", "f.npz"], "SOURCE: there is no file or folder 'nowhere'"),
        (["extract", ".", "-o", "f.npz"], "SOURCE: no image file in"),
        (["extract", ".", "-o", "f.xlsx"], "must end in one of .csv, .npz, .parquet"),
        (["extract", ".", "-o", "nowhere/f.npz"], "--output: there is no folder 'nowhere'"),
        (["stages", "efficientnet_lite"], "Did you mean one of ['efficientnet_lite"),
        (["backbones", "no such"], "no backbone matches 'no such'"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "resnet"], "there is no 'resnet'"),
        (["--layer", "blocks.99"], "blocks.99"),
        (["--frames", "some"], "--frames some"),
        (["--frames", "all"], "--bag-pooling mean"),
        (["--channels", "0,1"], "--channels 0,1 gives images of 2"),
        (["--device", "gpu"], "--device gpu cannot be used"),
        (["--batch-size", "0"], "--batch-size must be"),
    ],
)
def test_wrong_options_are_one_line(options, message, pictures, tmp_path, capsys):
    output = tmp_path / "features.npz"
    assert main(["extract", str(pictures), "-o", str(output), "--quiet", *options]) == 2
    assert message in one_line(capsys)
    assert not any(tmp_path.iterdir())


def test_an_image_that_cannot_be_read_leaves_no_output(tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no jpeg")
    assert main(["extract", str(tmp_path), "-o", str(tmp_path / "f.npz"), "--quiet", *SMALL]) == 2
    assert "broken.jpg" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jpg"]


@pytest.mark.parametrize("size", ["big", "1x2x3", "", "0", "32x0", "-1"])
def test_wrong_image_size_is_a_usage_error(size, capsys):
    with pytest.raises(SystemExit) as end:
        main(["extract", ".", "-o", "f.npz", f"--image-size={size}"])
    assert end.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(sklearn_featx.exceptions.MissingDependencyError, match=r"\[parquet\]"):
        choose_writer(tmp_path / "f.parquet")


class TestGroups:
    def test_by_the_path(self, pictures, tmp_path):
        output = tmp_path / "f.csv"
        arguments = ["extract", str(pictures), "-o", str(output), "-q", *SMALL]
        assert main([*arguments, "--group-by", r"([^/]*)/[^/]*$"]) == 0
        table = pd.read_csv(output, dtype=str, keep_default_na=False)
        assert list(table.columns[:4]) == ["path", "class", "group", "error"]
        folders = [os.path.split(path)[0] for path in table["path"]]
        # The path of the table is below SOURCE: a file at the top has no folder in it.
        named = filter(None, dict.fromkeys(folders))
        numbers = {"": ""} | {folder: str(i) for i, folder in enumerate(named)}
        assert table["group"].tolist() == [numbers[folder] for folder in folders]

    def test_a_check_names_images_without_a_group(self, pictures, capsys):
        assert main(["extract", str(pictures), "--check", "-q", "--group-by", "PatientID"]) == 1
        assert "no group: is no DICOM file, so it has no PatientID" in capsys.readouterr().err
        assert main(["extract", str(pictures), "--check", "-q", "--group-by", "PatientId"]) == 2
        assert "--group-by PatientId is no keyword of DICOM" in capsys.readouterr().err

    def test_a_missing_entry_has_no_group(self, pictures, tmp_path, capsys):
        table = tmp_path / "t.csv"
        table.write_text(f'image\n{next(pictures.rglob("*.png"))}\n""\n')
        arguments = ["extract", str(table), "--column", "image", "--check", "-q"]
        assert main([*arguments, "--group-by", r"\w+\.png"]) == 3
        assert "'row 1': no group: is no file" in capsys.readouterr().err

    def test_an_image_without_a_group(self, pictures, tmp_path, capsys):
        output = tmp_path / "f.npz"
        arguments = ["extract", str(pictures), "-o", str(output), "-q", *SMALL]
        assert main([*arguments, "--group-by", "PatientID"]) == 1
        said = capsys.readouterr().err
        assert "no group: is no DICOM file, so it has no PatientID" in said
        assert "--group-by 'PatientID' gives no image a group" in said
        assert not output.exists()
        assert main([*arguments, "--group-by", r"/(.*)\.png"]) in (0, 3)
