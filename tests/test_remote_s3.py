"""Remote files from S3, as moto serves it on loopback (dependency group `remote`)."""

import io
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from sklearn_featx import FeatureStore, ImageReader, PretrainedFeatureExtractor
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import ImageWarning

s3fs = pytest.importorskip("s3fs", reason="needs the dependency group remote")
pytest.importorskip("moto.server", reason="needs the dependency group remote")

# moto in a process of its own, as a server is; keys with "slow" take two seconds. It counts.
SERVER = """
import collections, json, sys, time
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

moto = DomainDispatcherApplication(create_backend_app)
counts = collections.Counter()

def application(environ, start_response):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path == "/counts":
        body = json.dumps(counts).encode()
        counts.clear()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    counts[method] += 1
    if "slow" in path and method == "GET":
        time.sleep(2)
    if "broken" in path and method == "GET":
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]
    if "forbidden" in path:
        start_response("403 Forbidden", [("Content-Length", "0")])
        return [b""]
    return moto(environ, start_response)

make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True).serve_forever()
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """Address of a server that has the bucket `photos`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()
    log.close()


@pytest.fixture(scope="module")
def options(endpoint):
    return {"key": "nobody", "secret": "do not show", "endpoint_url": endpoint}


@pytest.fixture(scope="module")
def bucket(options):
    """The bucket, as s3fs sees it."""
    files = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    files.mkdir("photos")
    return files


def counts(endpoint):
    from urllib.request import urlopen

    return json.loads(urlopen(f"{endpoint}/counts").read())


def jpeg(seed, side=96):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side, side)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def addresses(bucket, endpoint):
    """Addresses of twelve photographs; the fourth is missing, the sixth broken."""
    names = [f"photos/folder/{i}.jpg" for i in range(12)]
    names[5] = "photos/folder/broken.jpg"
    for i, name in enumerate(names):
        if i != 3:
            bucket.pipe_file(name, jpeg(i))
    return [f"s3://{name}" for name in names]


@pytest.fixture
def make(options, tmp_path):
    store = FeatureStore(tmp_path / "rows")
    reader = ImageReader(storage_options=options)

    def made(**parameters):
        settings = {"image_size": 16, "cache": store, "on_error": "nan", "reader": reader}
        return PretrainedFeatureExtractor("efficientnet_lite0", **(settings | parameters))

    return made


def transformed(extractor, X):
    with pytest.warns(ImageWarning):
        return extractor.transform(X)


def test_rows_in_order_and_reasons(addresses, make, endpoint):
    counts(endpoint)
    extractor = make()
    rows = transformed(extractor, addresses)
    expected = make(cache=False).transform([jpeg(i) for i in range(12)])
    good = [i for i in range(12) if i not in (3, 5)]
    np.testing.assert_allclose(rows[good], expected[good], rtol=1e-4, atol=1e-5)
    assert np.isnan(rows[[3, 5]]).all()
    missing, broken = extractor.failures_
    assert missing == (3, addresses[3], "there is no file at this address.")
    assert broken[:2] == (5, addresses[5])
    assert "do not show" not in repr(extractor.failures_)
    # A warm run asks for the states of the good files, and fetches none of them.
    counts(endpoint)
    np.testing.assert_array_equal(transformed(make(), addresses)[good], rows[good])
    warm = counts(endpoint)
    assert warm["HEAD"] == 12
    assert warm["GET"] <= 2 + 4


def test_a_changed_object_is_another_row(addresses, make, bucket):
    before = make().transform(addresses[:1])
    bucket.pipe_file("photos/folder/0.jpg", jpeg(100))
    after = make().transform(addresses[:1])
    bucket.pipe_file("photos/folder/0.jpg", jpeg(0))
    np.testing.assert_array_equal(make().transform(addresses[:1]), before)
    assert not np.array_equal(before, after)


def test_without_credentials_the_way_out_is_named(addresses, make, endpoint, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    extractor = make(reader=ImageReader(storage_options={"endpoint_url": endpoint}))
    with pytest.raises(ValueError, match="credentials"):
        extractor.fit_transform(addresses[:1])


# S3 allows each of these; the last is another key than "c/double.jpg".
KEYS = [
    "a b/ü 1.jpg", "#2.jpg", "q?3.jpg", "per%20cent.jpg", "plus+4.jpg", "e\u0301.jpg", "@x.jpg",
    "[1]*.jpg", "&=;,$!'().jpg", "e:f.jpg", "d/zip://x.jpg", "trailing .jpg", "{y}.jpg",
    "~tilde.jpg", "c/double.jpg", "c//double.jpg",
]  # fmt: skip


def test_keys_of_any_characters_on_the_command_line(bucket, options, make, tmp_path):
    for i, key in enumerate(KEYS):
        bucket.call_s3("put_object", Bucket="photos", Key=f"keys/{key}", Body=jpeg(i))
    bucket.call_s3("put_object", Bucket="photos", Key="keys/marker/", Body=b"")
    output = ["-q", "--image-size", "16", "-o", str(tmp_path / "f.npz")]
    given = ["--storage-options", json.dumps(options)]
    assert main(["extract", "s3://photos/keys", *output, *given]) == 0
    with np.load(tmp_path / "f.npz") as file:
        rows = dict(zip(file["paths"].tolist(), file["features"], strict=True))
    assert set(rows) == set(KEYS)
    expected = make(cache=False).transform([jpeg(i) for i in range(len(KEYS))])
    np.testing.assert_allclose([rows[key] for key in KEYS], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("no-bucket/set", "there is no file at this address."),
        ("photos/no-folder", "no image file in"),
        ("forbidden/set", "the server refuses access. For a public bucket pass"),
        pytest.param("broken/set", "Internal Server Error", marks=pytest.mark.slow),
        pytest.param("slow/set", "the server did not answer in time.", marks=pytest.mark.slow),
    ],
)
def test_faults_of_a_listing_are_one_line(bucket, options, folder, reason, capsys):
    if folder.startswith("slow"):
        limits = {"read_timeout": 0.2, "retries": {"max_attempts": 0}}
        options = options | {"config_kwargs": limits}
    given = ["--storage-options", json.dumps(options)]
    assert main(["extract", f"s3://{folder}", "--check", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"s3://{folder}" in err
    assert reason in err
    assert "do not show" not in err


@pytest.mark.slow
def test_500_photographs_as_fast_as_local_files(bucket, make, tmp_path, capsys):
    """1 % missing and 1 % slow by two seconds: at least 0.8 of the rate from local files.

    ``pytest -n 0 -m slow tests/test_remote_s3.py`` prints the rates.
    """
    names = [f"photos/many/{i}{'-slow' if i % 100 == 50 else ''}.jpg" for i in range(500)]
    missing = set(range(0, 500, 100))
    local = []
    for i, name in enumerate(names):
        data = jpeg(i, side=256)
        (tmp_path / f"{i}.jpg").write_bytes(data)
        local.append(tmp_path / f"{i}.jpg")
        if i not in missing:
            bucket.pipe_file(name, data)
    X = [f"s3://{name}" for name in names]
    settings = {"image_size": 224, "cache": False}
    make(**settings).transform(local[:64])
    ratios = []
    # In turn, so that other programs slow down both.
    for _ in range(3):
        start = time.perf_counter()
        expected = make(**settings).transform(local)
        middle = time.perf_counter()
        extractor = make(**settings)
        rows = transformed(extractor, X)
        end = time.perf_counter()
        ratios.append((middle - start) / (end - middle))
        with capsys.disabled():
            rates = 500 / (middle - start), 500 / (end - middle)
            print("\nlocal {:.1f}, S3 {:.1f} images/s: {:.2f}".format(*rates, ratios[-1]))  # noqa: T201
        assert [failure.row for failure in extractor.failures_] == sorted(missing)
        assert {f.reason for f in extractor.failures_} == {"there is no file at this address."}
        good = [i for i in range(500) if i not in missing]
        np.testing.assert_allclose(rows[good], expected[good], rtol=1e-4, atol=1e-5)
    assert np.median(ratios) >= 0.8
