"""The option --group-by: the expression sees the paths of the output, whatever the source."""

import sys
import tarfile
import zipfile
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from PIL import Image

from sklearn_featx.cli._groups import group_column
from sklearn_featx.cli._main import main
from sklearn_featx.cli._sources import Source

NAMES = ["cats/one.jpg", "cats/two.jpg", "dogs/three.jpg"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(path)
    monkeypatch.chdir(tmp_path)


def groups_of(source, by, **found):
    """Groups of the command for a source, by the paths of its table."""
    command = ["extract", source, "-o", "g.csv", "-q", "--image-size", "32", "--group-by", by]
    for option, value in found.items():
        command += [f"--{option}", value]
    assert main(command) == 0
    lines = Path("g.csv").read_text(encoding="utf-8").splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[2] for line in lines}


BY_FOLDER = dict(zip(NAMES, "001", strict=True))


@pytest.mark.parametrize("by", [r"^(\w+)/", r"(\w+)/"])
def test_the_path_in_the_table_of_a_folder(photos, by, capsys):
    assert groups_of("photos", by) == BY_FOLDER
    assert groups_of(str(Path("photos").resolve()), by) == BY_FOLDER
    assert capsys.readouterr().err == ""


def test_archives_and_tables(photos):
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in NAMES:
            archive.write(f"photos/{name}", name)
    assert groups_of("photos.zip", r"^(\w+)/") == BY_FOLDER
    # As `tar cf photos.tar -C photos .` does.
    with tarfile.open("photos.tar", "w") as archive:
        archive.add("photos", ".")
        assert "./cats/one.jpg" in archive.getnames()
    assert groups_of("photos.tar", r"^(\w+)/") == BY_FOLDER
    Path("t.csv").write_text("\n".join(["photo", *NAMES]), encoding="utf-8")
    assert groups_of("t.csv", r"^(\w+)/", root="photos") == BY_FOLDER


def test_lines(photos, monkeypatch):
    text = "\n".join(f"photos/{name}" for name in NAMES).encode()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text)))
    found = groups_of("-", r"^photos/(\w+)/")
    assert list(found) == [f"photos/{name}" for name in NAMES]
    assert list(found.values()) == ["0", "0", "1"]


def test_one_group_of_all_is_a_line(photos, capsys):
    assert set(groups_of("photos", r"(\w+)\.jpg$").values()) == {"0", "1", "2"}
    assert capsys.readouterr().err == ""
    assert set(groups_of("photos", r"\.jpg$").values()) == {"0"}
    said = capsys.readouterr().err
    assert said.startswith("sklearn-featx: warning: --group-by ")
    assert "puts all 3 files in one group" in said
    assert said.count("\n") == 1


def test_no_group_at_all_is_an_error(photos, capsys, tmp_path):
    command = ["extract", "photos", "-o", "g.csv", "--group-by"]
    for by in ("PatientID", r"patient_(\d+)"):
        assert main([*command, by]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("no group: ") == 3
        assert err.splitlines()[-1].startswith("sklearn-featx: error: --group-by ")
        assert not (tmp_path / "g.csv").exists()


def test_a_line_shows_no_credentials(capsys):
    address = "https://user:secret@host/a/1.png"
    found = group_column(Source([address], [address], [""]), r"patient_(\d+)")
    assert found.tolist() == [""]
    said = capsys.readouterr().err
    assert "the path does not match" in said
    assert "secret" not in said
