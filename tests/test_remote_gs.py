"""Remote files from Google Storage, as a small server on loopback gives them (group `remote`)."""

import base64
import hashlib
import io
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from sklearn_featx import ImageReader, PretrainedFeatureExtractor
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import ImageWarning

# Without it, gcsfs asks a second kind of server for the type of a bucket.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
pytest.importorskip("gcsfs", reason="needs the dependency group remote")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Objects of the bucket `photos`: their description, their content, and lists of them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        place = urlsplit(self.path)
        _, _, name = map(unquote, place.path.partition("/o/"))
        self.server.requests.append(self.path)
        if place.path.endswith("/o"):
            return self.reply(200, json.dumps({"items": list(map(self.about, self.files))}))
        if name not in self.files:
            return self.reply(404, '{"error": {"code": 404, "message": "No such object"}}')
        if not place.path.startswith("/download"):
            return self.reply(200, json.dumps(self.about(name)))
        if "locked" in name:
            return self.reply(403, '{"error": {"code": 403, "message": "Forbidden"}}')
        return self.reply(200, self.files[name])

    @property
    def files(self):
        return self.server.files

    def about(self, name):
        checksum = base64.b64encode(hashlib.md5(self.files[name]).digest()).decode()
        size = str(len(self.files[name]))
        return {"name": name, "bucket": "photos", "size": size, "md5Hash": checksum}

    def reply(self, status, body):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {f"f/{i}.png": png(pixels) for i, pixels in enumerate(PIXELS)}
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def options(server):
    return {"token": "anon", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}


@pytest.fixture
def make(options, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())

    def made(**parameters):
        settings = {"cache": str(tmp_path), "reader": ImageReader(storage_options={"gs": options})}
        return PretrainedFeatureExtractor(net, image_size=8, **(settings | parameters))

    return made


ADDRESSES = [f"gs://photos/f/{i}.png" for i in range(len(PIXELS))]


def test_rows_and_a_warm_run(server, make):
    expected = make(cache=False).fit_transform(PIXELS)
    np.testing.assert_array_equal(make().fit_transform(ADDRESSES), expected)
    assert sum("/download" in path for path in server.requests) == len(PIXELS)
    server.requests.clear()
    table = pd.DataFrame({"photo": [address.replace("gs:", "gcs:") for address in ADDRESSES]})
    np.testing.assert_array_equal(make().fit_transform(ADDRESSES), expected)
    assert not any("/download" in path for path in server.requests)
    np.testing.assert_array_equal(make(cache=False).fit_transform(table), expected)


def test_what_cannot_be_fetched(server, make):
    server.files["f/locked.png"] = server.files["f/0.png"]
    extractor = make(on_error="nan")
    names = ["0.png", "locked.png", "none.png"]
    with pytest.warns(ImageWarning):
        rows = extractor.fit_transform([f"gs://photos/f/{name}" for name in names])
    assert np.isnan(rows[:, 0]).tolist() == [False, True, True]
    locked, none = extractor.failures_
    assert locked.reason.startswith("the server refuses access. For a public bucket pass")
    assert none[:2] == (2, "gs://photos/f/none.png")
    assert none.reason == "there is no file at this address."


def test_a_folder_on_the_command_line(options, capsys):
    arguments = ["--check", "--quiet", "--storage-options", json.dumps(options)]
    assert main(["extract", "gs://photos/f", *arguments]) == 0
    assert capsys.readouterr().err == ""
