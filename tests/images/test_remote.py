"""Remote files without a network: memory, zip and tar; wrong addresses."""

import io
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from fsspec.registry import _registry
from PIL import Image

from sklearn_featx.exceptions import ImageError, MissingDependencyError
from sklearn_featx.images import ReadOptions, _remote, _remote_systems, as_image_collection
from sklearn_featx.images._entries import as_item
from sklearn_featx.images._items import FileItem


@pytest.fixture(scope="module")
def contents():
    """Six PNG files by name, with names of several scripts."""
    random = np.random.default_rng(0)
    files = {}
    for i in range(6):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (8 + i, 9, 3), dtype=np.uint8)).save(file, "PNG")
        files[f"Äpfel {i}/梨@{i}?.png"] = file.getvalue()
    return files


@pytest.fixture
def memory(contents, in_memory):
    return in_memory("photos", contents)


@pytest.fixture
def archives(contents, tmp_path):
    """The files in a zip, a tar and a tar.gz: their paths."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    for suffix in ("tar", "tar.gz"):
        with tarfile.open(tmp_path / f"photos.{suffix}", f"w:{suffix[4:]}") as archive:
            for name, data in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return tmp_path


def levels(images):
    return [images.load(i) for i in range(len(images))]


def test_they_are_read_as_local_files_are(contents, memory):
    images = as_image_collection(memory)
    local = as_image_collection(list(contents.values()))
    for i in range(len(local)):
        np.testing.assert_array_equal(images.load(i), local.load(i))
        assert images.digest(i) == local.digest(i)
        assert images.path(i) == memory[i]
        assert images.n_pixels(i) is None
        assert [source.path for source in images.sources(i)] == [memory[i]]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("ahead", [True, False])
def test_files_of_archives(contents, archives, suffix, ahead):
    scheme = suffix[:3]
    path = archives / f"photos.{suffix}"
    images = as_image_collection([f"{scheme}://{name}::{path}" for name in reversed(contents)])
    local = as_image_collection(list(reversed(contents.values())))
    positions = range(len(images)) if ahead else []
    with images.reading_ahead(positions, with_states=True):
        opened = [images.opened(i) for i in range(len(images))]
    assert [item.data for item in opened] == list(reversed(contents.values()))
    assert [item.digest() for item in opened] == [local.digest(i) for i in range(6)]
    # The state of a file is that of its archive.
    assert {item.state[1] for item in opened} == {path.stat().st_size}
    assert len({item.state[0] for item in opened}) == 6
    assert [item.state for item in opened] == images.remote_states(range(6))


def test_a_replaced_archive_has_another_state(contents, archives):
    path = archives / "photos.zip"
    address = f"zip://{next(iter(contents))}::{path}"
    before = as_image_collection([address]).opened(0)
    other = dict.fromkeys(contents, next(reversed(contents.values())))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in other.items():
            archive.writestr(name, data)
    after = as_image_collection([address]).opened(0)
    assert after.data == other[next(iter(contents))] != before.data
    assert after.state != before.state
    assert after.state[0] == before.state[0]


def test_holders_of_addresses(contents, memory, archives):
    upath = pytest.importorskip("upath").UPath
    local = levels(as_image_collection(list(contents.values())))
    zipped = str(archives / "photos.zip")
    (archives / "a.png").write_bytes(next(iter(contents.values())))
    for X in (
        memory,
        np.array(memory),
        pd.Series(memory),
        pd.DataFrame({"photo": memory}),
        [upath(address) for address in memory],
        pd.Series([upath(address) for address in memory]),
        [upath(f"zip://{name}", fo=zipped) for name in contents],
        [upath(f"zip://{name}::{zipped}") for name in contents],
        [(archives / "a.png").as_uri(), upath(archives / "a.png"), *memory[1:]][1:],
    ):
        for found, expected in zip(levels(as_image_collection(X)), local, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_file_address_is_a_local_file(tmp_path):
    path = tmp_path / "a b ü.png"
    Image.new("RGB", (4, 3)).save(path)
    assert as_item(path.as_uri(), 0) == FileItem(str(path), as_item(path, 0).options)


def test_a_file_address_with_a_host_is_no_file_of_the_root(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 3)).save(path)
    # Without its host the address would lead to the file.
    images = as_image_collection([f"file://tmp{path.as_posix()}"], ReadOptions(on_error="nan"))
    with pytest.raises(ImageError, match=r"row 0 .*names the host 'tmp', not a local file"):
        images.load(0)
    here = as_image_collection([f"file://localhost{path.as_posix()}"])
    assert here.load(0).shape == (3, 4, 3)


def test_a_collection_pickles(memory, archives, contents):
    zipped = [f"zip://{name}::{archives / 'photos.zip'}" for name in contents]
    images = as_image_collection(memory + zipped, ReadOptions(storage_options={"zip": {}}))
    before = levels(images)
    for found, expected in zip(levels(pickle.loads(pickle.dumps(images))), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_missing_file_has_its_row_and_address(memory, archives):
    for address in ("memory://photos/no.png", f"zip://no.png::{archives / 'photos.zip'}"):
        images = as_image_collection([memory[0], address])
        for call in (images.load, images.opened, images.digest):
            with pytest.raises(ImageError, match=r"^row 1 .*: there is no file at this addr") as e:
                call(1)
            assert e.value.path == address
            assert e.value.__cause__ is None
            # The messages of other libraries have the whole address.
            error = e.value
            while error is not None:
                assert isinstance(error, ImageError)
                error = error.__context__


@pytest.mark.parametrize(
    ("url", "paths", "expected"),
    [
        ("local:///data/x", ["/data/x/a/1.png"], {"a/1.png": "local:///data/x/a/1.png"}),
        ("local:///data/x/", ["/data/x/1.png"], {"1.png": "local:///data/x/1.png"}),
        ("local:///data/1.png", ["/data/1.png"], {"1.png": "local:///data/1.png"}),
        ("local:///", ["/data/1.png"], {"data/1.png": "local:///data/1.png"}),
        ("memory://b/x", ["/b/x/1.png"], {"1.png": "memory://b/x/1.png"}),
        ("memory://", ["/b/1.png"], {"b/1.png": "memory://b/1.png"}),
        ("s3://b/x", ["b/x/1.png"], {"1.png": "s3://b/x/1.png"}),
        ("s3://b", ["b/1.png"], {"1.png": "s3://b/1.png"}),
        ("sftp://me@host/x", ["/x/1.png"], {"1.png": "sftp://me@host/x/1.png"}),
        ("zip://::p.zip", ["a/1.png"], {"a/1.png": "zip://a/1.png::p.zip"}),
        ("zip://a::p.zip", ["a/1.png"], {"1.png": "zip://a/1.png::p.zip"}),
    ],
)
def test_addresses_of_a_listing_start_with_the_address_of_the_folder(url, paths, expected):
    class Files:
        def find(self, _):
            return paths

        def _strip_protocol(self, link):
            scheme, _, place = link.partition("://")
            host = "me@host" if scheme == "sftp" else ""
            return place.removeprefix(host).rstrip("/")

    found = _remote_systems.System(Files(), "any").find(_remote.Address(url))
    assert found == expected


def test_a_missing_archive_is_opened_once(tmp_path, monkeypatch):
    calls = []
    opened = _remote.open_system
    monkeypatch.setattr(_remote, "open_system", lambda *args: calls.append(args) or opened(*args))
    images = as_image_collection([f"zip://{i}.png::{tmp_path / 'no.zip'}" for i in range(5)])
    for i in range(5):
        with pytest.raises(ImageError, match="there is no file"):
            images.load(i)
    assert len(calls) == 1


def test_large_files_are_refused_before_they_fill_the_memory(memory, archives, monkeypatch):
    monkeypatch.setattr(_remote, "_MOST_BYTES", 100)
    images = as_image_collection([memory[0]])
    with pytest.raises(ImageError, match=r"more than 100 bytes\. Download it"):
        images.load(0)


def test_no_state_where_the_content_may_be_older(memory):
    # Memory belongs to one process, and a cache of fsspec may be stale.
    images = as_image_collection([memory[0], f"simplecache::{memory[1]}"])
    assert [images.opened(i).state for i in range(2)] == [None, None]
    assert images.remote_states([0, 1]) == [None, None]


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("nothing://bucket/a.jpg", ImageError, "row 0 .*the scheme 'nothing' is unknown"),
        ("zip://a.jpg::nothing://b/x.zip", ImageError, "row 0 .*the scheme 'nothing' is unknown"),
        ("s3://bucket/a.jpg", MissingDependencyError, r'pip install "sklearn-featx\[remote\]"'),
        ("https://host/a.jpg", MissingDependencyError, r'pip install "sklearn-featx\[remote\]"'),
        ("gs://bucket/a.jpg", MissingDependencyError, "gs:// cannot be read: .*gcsfs"),
    ],
)
def test_wrong_addresses_are_one_line(address, error, message, monkeypatch):
    for package in ("s3fs", "aiohttp", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    for scheme in ("s3", "https", "gs"):
        # Other tests may have loaded them.
        monkeypatch.delitem(_registry, scheme, raising=False)
    _remote_systems._is_known.cache_clear()
    try:
        with pytest.raises(error, match=message) as caught:
            as_image_collection([address], ReadOptions(on_error="raise"))
    finally:
        _remote_systems._is_known.cache_clear()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_options_are_of_all_servers_or_by_scheme():
    def merged(url, options):
        return _remote_systems.merged_options(_remote.Address(url), options)

    assert merged("s3://b/a.jpg", {"anon": True}) == {"s3": {"anon": True}}
    by_scheme = {"s3": {"anon": True}, "https": {"headers": {"a": "b"}}}
    assert merged("s3://b/a.jpg", by_scheme) == {"s3": {"anon": True}}
    assert merged("http://b/a.jpg", by_scheme) == {"http": {"headers": {"a": "b"}}}
    assert merged("zip://a.jpg::s3://b/x.zip", {"anon": True}) == {"zip": {}, "s3": {"anon": True}}
    assert merged("zip://a.jpg::x.zip", {"anon": True}) == {"zip": {}, "file": {}}
    assert merged("memory://a.jpg", None) == {"memory": {}}


def test_options_are_not_shown():
    options = ReadOptions(storage_options={"secret": "do not show"})
    assert "do not show" not in repr(options)
    assert options == ReadOptions()


def test_the_store_is_not_asked_for_local_files(files):
    images = as_image_collection(files)
    assert {images.remote_name(i) for i in range(len(images))} == {None}
    assert images.path(0) == files[0]
