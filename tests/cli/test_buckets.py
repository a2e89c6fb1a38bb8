"""Listings of buckets and archives: scans without a suffix, and names that are no plain paths."""

import csv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sklearn_featx.cli._folder import images_among
from sklearn_featx.cli._main import main

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def scan():
    return Path(pytest.importorskip("pydicom.data").get_testdata_file("CT_small.dcm")).read_bytes()


@pytest.fixture
def contents(scan):
    scans = dict.fromkeys(["IM0001", "series/1.2.840.113", "series/a.dcm", "DICOMDIR"], scan)
    return scans | {"README": b"text", "_SUCCESS": b"", ".IM2": scan, "notes.txt": b"text"}


@pytest.fixture
def bucket(contents):
    files = fsspec.filesystem("memory")
    for name, content in contents.items():
        files.pipe_file(f"/scans-of-a-test/set/{name}", content)
    yield "memory://scans-of-a-test/set"
    files.rm("/scans-of-a-test", recursive=True)


@pytest.fixture
def archive(contents, tmp_path):
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return str(tmp_path / "scans.zip")


@pytest.fixture
def folder(contents, tmp_path):
    for name, content in contents.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(tmp_path / "folder")


def extracted(source, tmp_path):
    output = ["-q", "--image-size", "32", "-o", str(tmp_path / "f.csv")]
    assert main(["extract", source, *output]) == 0
    return list(csv.reader((tmp_path / "f.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("kind", ["bucket", "archive", "folder"])
def test_scans_without_a_suffix_are_found_by_their_content(kind, request, capsys):
    assert main(["extract", request.getfixturevalue(kind), "--check"]) == 0
    out, err = capsys.readouterr()
    assert out == "3 images are readable\n"
    assert "other suffixes 1 (.txt 1)" in err
    assert "hidden 1" in err


def test_rows_of_a_bucket_are_those_of_a_folder(bucket, folder, tmp_path):
    rows = extracted(bucket, tmp_path)
    assert [row[0] for row in rows[1:]] == ["IM0001", "series/1.2.840.113", "series/a.dcm"]
    assert rows == extracted(folder, tmp_path)


@pytest.mark.parametrize("scheme", ["file", "FILE", "local"])
def test_an_address_of_a_local_folder_reads_the_files_of_the_folder(scheme, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    for i, name in enumerate(("a/1.png", "b/2.png", "3.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 50 + i).save(folder / name)
    # The place of the same files if the first folder of the path is taken for a host.
    monkeypatch.chdir(tmp_path)
    rows = extracted(str(folder), tmp_path)
    assert [row[:2] for row in rows[1:]] == [["3.png", ""], ["a/1.png", "a"], ["b/2.png", "b"]]
    for end in ("", "/"):
        assert extracted(f"{scheme}://{folder.as_posix()}{end}", tmp_path) == rows


def test_a_local_address_with_a_host_is_refused(capsys):
    assert main(["extract", "file://tmp/photos", "--check"]) == 2
    assert "'file://tmp/photos' names the host 'tmp', not a folder" in capsys.readouterr().err


def test_a_table_has_a_local_address_too(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "a b.png")
    (tmp_path / "t 1.csv").write_text("photo\na b.png\n")
    assert main(["extract", (tmp_path / "t 1.csv").as_uri(), "--check"]) == 0
    assert capsys.readouterr().out == "1 image is readable\n"


def test_only_files_without_a_suffix_are_read_for_a_listing(bucket, monkeypatch):
    from sklearn_featx.cli import _sources
    from sklearn_featx.images import _remote_systems

    read = _remote_systems.System.read
    asked = []

    def spy(system, address, most):
        asked.append((address.url.rpartition("/")[2], most))
        return read(system, address, most)

    monkeypatch.setattr(_remote_systems.System, "read", spy)
    _sources._from_address(bucket, None, None)
    names = ["1.2.840.113", "DICOMDIR", "IM0001", "README", "_SUCCESS"]
    assert sorted(asked) == [(name, 512) for name in names]


def test_a_start_that_cannot_be_read_is_counted():
    found = images_among(["a.jpg", "IM1", "IM2"], "bucket", lambda names: [None, True])
    assert found.names == ["IM2", "a.jpg"]
    assert found.skipped == "no suffix and unreadable or empty 1"


def test_names_that_differ_in_slashes_are_two_files():
    names = ["c//a.jpg", "c/a.jpg", "./b.jpg"]
    found = images_among(names, "bucket", lambda names: [False] * len(names))
    assert sorted(found.names) == ["./b.jpg", "c//a.jpg", "c/a.jpg"]
