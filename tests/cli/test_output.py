"""Output files: whole or as they were, checked before any work, and text in UTF-8."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_featx.cli._lines import in_utf_8
from sklearn_featx.cli._main import main
from sklearn_featx.cli._output import choose_writer, write_whole
from sklearn_featx.exceptions import InputError

SMALL = ["--quiet", "--image-size", "32"]


def test_output_is_whole_or_as_it_was(tmp_path):
    output = tmp_path / "f.npz"
    output.write_bytes(b"before")

    def write(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(output, write)
    assert output.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [output]


def test_output_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    write_whole(tmp_path / "f.npz", lambda file: file.write(b"all"))
    assert (tmp_path / "f.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_output_that_cannot_be_written_is_found_before_any_work(
    pictures, tmp_path, monkeypatch, capsys, trunk_rows
):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    output = tmp_path / "f.csv"
    monkeypatch.setattr(Path, "touch", refuse)
    assert main(["extract", str(pictures), "-o", str(output), *SMALL]) == 2
    assert trunk_rows == []
    assert capsys.readouterr().err == (
        f"sklearn-featx: error: --output: {str(output)!r} cannot be written (Permission denied). "
        "Name a file in another folder.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system of the kernel")
def test_no_file_can_be_made_in_a_file_system_of_the_kernel():
    with pytest.raises(InputError, match=r"--output: '/proc/x.csv' cannot be written \("):
        choose_writer(Path("/proc/x.csv"))


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(InputError, match=r"f\.csv' is a folder or a device, not a file"):
        choose_writer(tmp_path / "f.csv")


def test_an_error_while_writing_names_the_output(tmp_path):
    def write(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"--output: .*f\.npz' cannot be written \(No space") as e:
        write_whole(tmp_path / "f.npz", write)
    assert ".tmp" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def link(tmp_path):
    """A symbolic link to a file in another folder, which does not exist yet."""
    (tmp_path / "data").mkdir()
    try:
        (tmp_path / "f.csv").symlink_to(Path("data", "real.csv"))
    except OSError:
        pytest.skip("no links here")
    return tmp_path / "f.csv"


def test_a_link_is_written_through(link):
    target = link.parent / "data" / "real.csv"
    for content in (b"first", b"second"):
        choose_writer(link)
        write_whole(link, lambda file, content=content: file.write(content))
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["real.csv"]


def test_a_link_that_leads_nowhere_is_an_error(link):
    (link.parent / "data").rmdir()
    with pytest.raises(InputError, match=r"--output: .*f\.csv' cannot be written \("):
        choose_writer(link)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(InputError, match=r"--output: .*f\.csv' cannot be written \("):
        choose_writer(link)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only there")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_names_that_are_not_unicode_have_escapes(suffix, tmp_path):
    folder = os.fsencode(tmp_path) + b"/photos\xe9"
    Path(os.fsdecode(folder + b"/caf\xe9")).mkdir(parents=True)
    picture = Image.new("RGB", (40, 40))
    picture.save(os.fsdecode(folder + b"/caf\xe9/bad\xff.png"))
    Path(os.fsdecode(folder + b"/caf\xe9/broken.png")).write_bytes(b"none")
    output = tmp_path / f"f{suffix}"
    assert main(["extract", os.fsdecode(folder), "-o", str(output), *SMALL]) == 3
    if suffix == ".npz":
        with np.load(output) as file:
            table = {"path": file["paths"].tolist(), "class": file["classes"].tolist()}
    else:
        read = pd.read_csv if suffix == ".csv" else pd.read_parquet
        table = read(output)[["path", "class"]].to_dict("list")
    assert table == {
        "path": [r"caf\xe9/bad\xff.png", r"caf\xe9/broken.png"],
        "class": [r"caf\xe9"] * 2,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ä梨.png", "ä梨.png"),
        (os.fsdecode(b"a\x80\xff"), r"a\x80\xff"),
        ("\ud800a", r"\ud800a"),
    ],
)
def test_escapes_of_text(text, expected):
    assert in_utf_8(text) == expected
