"""Remote files in the estimators, from a real server on loopback: what is fetched, how often."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    FeatureStore,
    FineTuneClassifier,
    ImageReader,
    PretrainedFeatureExtractor,
    plan_search,
)
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import ImageError, ImageWarning

pytest.importorskip("aiohttp", reason="needs the extra remote")


class Server(ThreadingHTTPServer):
    """Serves bytes by path, with ETags, and counts requests; some paths misbehave."""

    daemon_threads = True
    # A connection that the queue has no room for is tried again after a second.
    request_queue_size = 128

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests = Counter()
        self.with_etag = True
        self.modified = None
        self.end = threading.Event()
        # Where "/elsewhere" redirects to.
        self.target = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def n(self, method, path=None):
        return sum(
            count for (m, p), count in self.requests.items() if m == method and path in (None, p)
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(None)

    def answer(self, body):
        path = self.path.partition("?")[0]
        self.server.requests[self.command, path] += 1
        if path == "/hang":
            self.server.end.wait(30)
            return self.close()
        if path in ("/elsewhere", "/here"):
            to = self.server.target if path == "/elsewhere" else "/0.png"
            return self.head(302, b"", Location=to)
        if path == "/500":
            return self.head(500, b"broken")
        if path == "/403":
            return self.head(403, b"")
        data = self.server.files.get(path)
        if data is None:
            return self.head(404, b"nothing")
        etag = {"ETag": f'"{hash(data)}"'} if self.server.with_etag else {}
        if self.server.modified is not None:
            etag["Last-Modified"] = formatdate(self.server.modified, usegmt=True)
        return self.head(200, data, **etag)

    def close(self):
        self.close_connection = True

    def head(self, status, data, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    return thread


@pytest.fixture
def server(digits):
    """A server of the digits as PNG files, /0.png to /59.png."""
    files = {}
    for i, image in enumerate(digits[0]):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files[f"/{i}.png"] = file.getvalue()
    server = Server(files)
    thread = running(server)
    yield server
    server.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def addresses(server):
    return [f"{server.url}{path}" for path in server.files]


@pytest.fixture
def make(small_net, tmp_path):
    """Return a function that makes an extractor with a store of its own."""
    store = FeatureStore(tmp_path / "rows")

    def made(**parameters):
        settings = {"image_size": 16, "cache": store} | parameters
        return PretrainedFeatureExtractor(small_net, **settings)

    return made


@pytest.fixture
def expected(make, digits):
    return make(cache=False).transform(digits[0])


class TestFetches:
    def test_each_file_is_fetched_once_and_a_warm_run_fetches_nothing(
        self, server, addresses, make, expected, trunk_rows
    ):
        np.testing.assert_array_equal(make().fit_transform(addresses), expected)
        assert server.n("GET") == 60
        assert max(server.requests.values()) == 1
        assert sum(trunk_rows) == 60
        server.requests.clear()
        np.testing.assert_array_equal(make().fit_transform(addresses[::-1]), expected[::-1])
        assert server.n("GET") == 0
        assert server.n("HEAD") == 60
        assert sum(trunk_rows) == 60

    def test_only_what_x_names_is_asked_for(self, server, addresses, make):
        make().transform(addresses[5:9])
        assert {path for _, path in server.requests} == {f"/{i}.png" for i in range(5, 9)}

    def test_without_a_cache_there_is_one_request_for_a_file(self, server, addresses, make):
        make(cache=False).transform(addresses)
        assert set(server.requests.values()) == {1}
        assert server.n("HEAD") == 0

    def test_without_etags_a_warm_run_reads_again_and_computes_nothing(
        self, server, addresses, make, expected, trunk_rows
    ):
        server.with_etag = False
        for _ in range(2):
            np.testing.assert_array_equal(make().transform(addresses), expected)
        assert server.n("GET") == 120
        assert sum(trunk_rows) == 60

    @pytest.mark.parametrize(("age", "fetched"), [(-3600, 8), (3600, 0)])
    def test_a_file_that_has_just_changed_is_read_again(
        self, server, addresses, make, age, fetched
    ):
        # Its ETag may be of a time in seconds. The age may be negative: clocks differ.
        server.modified = time.time() - age
        make().transform(addresses[:8])
        server.requests.clear()
        make().transform(addresses[:8])
        assert server.n("GET") == fetched

    def test_a_changed_file_is_another_row(self, server, addresses, make, expected):
        make().transform(addresses)
        server.files["/7.png"] = server.files["/50.png"]
        rows = make().transform(addresses)
        np.testing.assert_array_equal(rows[7], expected[50])
        np.testing.assert_array_equal(np.delete(rows, 7, 0), np.delete(expected, 7, 0))

    def test_another_network_reads_again(self, server, addresses, make):
        make().transform(addresses[:8])
        make(pooling="max").transform(addresses[:8])
        assert server.n("GET") == 16

    def test_signed_addresses_are_one_file(self, server, addresses, make):
        for signature in "ab":
            make().transform([f"{a}?X-Amz-Signature={signature}" for a in addresses])
        assert server.n("GET") == 60

    def test_keys_are_by_content(self, server, addresses, make, digits, trunk_rows):
        contents = list(server.files.values())
        make().transform(contents)
        make().transform(addresses)
        assert sum(trunk_rows) == 60


class TestFaults:
    def transform(self, make, X, **parameters):
        extractor = make(on_error="nan", **parameters)
        with pytest.warns(ImageWarning):
            rows = extractor.transform(X)
        return rows, extractor.failures_

    @pytest.mark.parametrize("cache", [False, True])
    def test_each_is_an_unreadable_row_with_its_address(
        self, server, addresses, make, expected, cache
    ):
        X = list(addresses)
        reasons = {
            3: ("/none.png", "there is no file at this address."),
            20: ("/500", "the server answered 500"),
            40: ("/403", "the server refuses access."),
            55: ("/text", "the content is no image"),
        }
        server.files["/text"] = b"no image"
        for row, (path, _) in reasons.items():
            X[row] = f"{server.url}{path}"
        options = {} if cache else {"cache": False}
        rows, failures = self.transform(make, X, **options)
        assert [(f.row, f.path) for f in failures] == [(row, X[row]) for row in reasons]
        for failure in failures:
            assert failure.reason.startswith(reasons[failure.row][1])
            assert "\n" not in str(failure)
        assert np.isnan(rows[list(reasons)]).all()
        good = np.setdiff1d(np.arange(60), list(reasons))
        np.testing.assert_array_equal(rows[good], expected[good])

    def test_a_timeout_is_an_unreadable_row(self, server, addresses, make):
        import aiohttp

        X = [addresses[0], f"{server.url}/hang"]
        timeout = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=1)}}
        reader = ImageReader(storage_options={"http": timeout})
        _, failures = self.transform(make, X, reader=reader, cache=False)
        # On a busy machine the other one may be late too.
        assert failures[-1] == (1, X[1], "the server did not answer in time.")

    def test_the_first_is_an_error_where_that_is_asked_for(self, server, addresses, make):
        X = [*addresses[:5], f"{server.url}/none.png"]
        with pytest.raises(ImageError, match=r"row 5 \('http://127\.0\.0\.1:\d+/none\.png'\)"):
            make().transform(X)

    def test_credentials_are_in_no_message_and_not_in_the_store(
        self, server, addresses, make, tmp_path
    ):
        host = server.url.partition("//")[2]
        paths = ["/0.png", "/500", "/none.png", "/403"]
        X = [f"http://anna:geheim@{host}{path}?token=geheim" for path in paths]
        reader = ImageReader(storage_options={"headers": {"X-Key": "geheim"}})
        extractor = make(on_error="nan", reader=reader)
        with pytest.warns(ImageWarning) as caught:
            extractor.transform(X)
        assert len(extractor.failures_) == 3
        for text in [str(w.message) for w in caught] + [repr(extractor.failures_)]:
            assert "geheim" not in text
            assert "anna" not in text
        for file in (tmp_path / "rows").rglob("*"):
            if file.is_file():
                assert b"geheim" not in file.read_bytes()
                assert b"anna" not in file.read_bytes()

    def test_a_redirect_to_another_host_is_refused(self, server, make, expected):
        server.target = f"http://localhost:{server.server_port}/0.png"
        X = [f"{server.url}/{name}" for name in ("here", "elsewhere", "1.png")]
        rows, failures = self.transform(make, X)
        (failure,) = failures
        assert failure.row == 1
        assert "redirects to another host, localhost" in failure.reason
        np.testing.assert_array_equal(rows[[0, 2]], expected[:2])
        reader = ImageReader(storage_options={"http": {"allow_redirects": True}})
        np.testing.assert_array_equal(make(reader=reader).transform(X), expected[[0, 0, 1]])

    def test_a_slow_file_holds_up_no_other(self, server, addresses, make, monkeypatch):
        """The first file comes when all others have been asked for."""
        answer = _Handler.answer
        others = []

        def slow(handler, body):
            if handler.path == "/0.png":
                deadline = time.monotonic() + 20
                while server.n("GET") < 59 and time.monotonic() < deadline:
                    time.sleep(0.001)
                others.append(server.n("GET"))
            answer(handler, body)

        monkeypatch.setattr(_Handler, "answer", slow)
        make(cache=False).transform(addresses)
        assert others == [59]


class TestReported:
    """Problems that people had with other libraries."""

    def test_signed_addresses_may_refuse_head(self, server, addresses, make, expected, monkeypatch):
        # fsspec/filesystem_spec#717, allenai/cached_path#252: they are signed for GET alone.
        monkeypatch.setattr(_Handler, "do_HEAD", lambda self: self.head(403, b""))
        signed = [f"{address}?X-Amz-Signature=a" for address in addresses[:4]]
        np.testing.assert_array_equal(make().transform(signed), expected[:4])

    def test_a_server_that_sends_without_an_end(self, server, addresses, make, monkeypatch):
        # rom1504/img2dataset#437: it sends a little, again and again.
        import aiohttp

        answer = _Handler.answer

        def dribble(handler, body):
            if handler.path != "/endless":
                return answer(handler, body)
            handler.send_response(200)
            handler.end_headers()
            with contextlib.suppress(OSError):
                while not server.end.wait(0.02):
                    handler.wfile.write(b"x")
            return handler.close()

        monkeypatch.setattr(_Handler, "answer", dribble)
        timeout = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=1)}}
        reader = ImageReader(storage_options={"http": timeout})
        extractor = make(on_error="nan", reader=reader, cache=False)
        X = [addresses[0], f"{server.url}/endless"]
        with pytest.warns(ImageWarning):
            extractor.transform(X)
        assert extractor.failures_[-1] == (1, X[1], "the server did not answer in time.")

    def test_a_placeholder_of_another_host_is_no_image(self, server, addresses, make):
        # openimages/dataset#9: a redirect to "photo_unavailable.png" of another host.
        server.target = f"http://localhost:{server.server_port}/1.png"
        extractor = make(on_error="nan")
        with pytest.warns(ImageWarning):
            extractor.transform([addresses[0], f"{server.url}/elsewhere"])
        assert [failure.row for failure in extractor.failures_] == [1]

    def test_a_web_page_in_place_of_an_image(self, server, addresses, make):
        # Eventual-Inc/Daft#4518.
        server.files["/page.jpg"] = b"<!DOCTYPE html><html>Sorry</html>"
        extractor = make(on_error="nan")
        with pytest.warns(ImageWarning, match="web page"):
            extractor.transform([addresses[0], f"{server.url}/page.jpg"])

    def test_names_with_spaces_and_letters_of_other_scripts(self, server, make, expected):
        # fsspec/filesystem_spec#1168, derf/feh#780.
        server.files["/a%20b/%E6%A2%A8%20%23.png"] = server.files["/3.png"]
        X = [f"{server.url}/a b/梨 %23.png", f"{server.url}/a%20b/%E6%A2%A8%20%23.png"]
        np.testing.assert_array_equal(make().transform(X), expected[[3, 3]])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_reads_after_its_parent(self, server, addresses):
        # fsspec/s3fs#914, #889, #369: the threads of the parent do not exist in the child.
        script = (
            "import os, sys\n"
            "from sklearn_featx.images import as_image_collection\n"
            "def read():\n"
            "    images = as_image_collection(sys.argv[1:])\n"
            "    with images.reading_ahead(range(len(images)), with_states=True):\n"
            "        return [images.opened(i).digest() for i in range(len(images))]\n"
            "images = as_image_collection(sys.argv[1:])\n"
            "before = [images.opened(i).digest() for i in range(len(images))]\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    again = [images.opened(i).digest() for i in range(len(images))]\n"
            "    os._exit(0 if read() == before == again else 1)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
            "assert read() == before\n"
        )
        command = [sys.executable, "-W", "ignore", "-c", script, *addresses[:5]]
        subprocess.run(command, check=True, timeout=120)

    def test_the_users_own_listing_is_not_asked(self, server, addresses, make, expected):
        # fsspec/s3fs#490, #260: an old listing hides a change.
        own = fsspec.filesystem("http", use_listings_cache=True)
        before = own.info(addresses[0])
        make().transform(addresses[:1])
        server.files["/0.png"] = server.files["/9.png"]
        assert own.info(addresses[0])["name"] == before["name"]
        np.testing.assert_array_equal(make().transform(addresses[:1]), expected[[9]])


class TestEverywhere:
    def test_searches_pipelines_and_column_transformers(
        self, addresses, make, digits, expected, small_net
    ):
        X, images, y = addresses[::3], digits[0][::3], digits[1][::3]
        columns = ColumnTransformer([("photo", make(), ["photo"])])
        frame = pd.DataFrame({"photo": X, "other": 1})
        np.testing.assert_array_equal(columns.fit_transform(frame), expected[::3])
        pipe = make_pipeline(make(), LogisticRegression(max_iter=200))
        search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1.0]}, cv=2)
        search.fit(np.array(X), y)
        local = clone(search).fit(images, y)
        np.testing.assert_array_equal(
            search.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"]
        )
        again = pickle.loads(pickle.dumps(search.best_estimator_))
        np.testing.assert_array_equal(again.predict(X), local.predict(images))

    def test_a_plan_of_a_search(self, server, addresses, make):
        search = GridSearchCV(
            make_pipeline(make(), LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2
        )
        y = np.arange(20) % 2
        before = plan_search(search, addresses[:20], y)
        search.fit(addresses[:20], y)
        server.requests.clear()
        after = plan_search(search, addresses[:20], y)
        assert (before.n_passes, after.n_passes) == (20, 0)
        assert server.n("GET") <= 20

    def test_fine_tuners(self, addresses, digits, small_net):
        X, y = digits
        classifier = FineTuneClassifier(
            small_net, unfreeze_depth=1, max_epochs=1, image_size=16, random_state=0
        )
        remote = classifier.fit(addresses, y).predict_proba(addresses)
        np.testing.assert_array_equal(classifier.fit(X, y).predict_proba(X), remote)

    @pytest.mark.slow
    def test_in_worker_processes(self, addresses, digits, make):
        pipe = make_pipeline(make(), LogisticRegression(max_iter=200))
        scores = [
            GridSearchCV(pipe, {"logisticregression__C": [0.1, 1.0]}, cv=2, n_jobs=n_jobs)
            .fit(np.array(addresses), digits[1])
            .cv_results_["mean_test_score"]
            for n_jobs in (1, 2)
        ]
        np.testing.assert_array_equal(*scores)

    def test_on_the_command_line(self, server, addresses, tmp_path, capsys):
        pd.DataFrame({"photo": [*addresses[:3], f"{server.url}/no.png?token=geheim"]}).to_csv(
            tmp_path / "t.csv", index=False
        )
        arguments = ["extract", str(tmp_path / "t.csv"), "--column", "photo", "--image-size", "32"]
        assert main([*arguments, "-o", str(tmp_path / "f.csv")]) == 3
        out, err = capsys.readouterr()
        assert out.startswith("3 of 4 images, 1280 features each")
        assert "there is no file at this address" in err
        assert "geheim" not in err
        frame = pd.read_csv(tmp_path / "f.csv")
        assert frame["error"].isna().tolist() == [True, True, True, False]
        assert main([*arguments, "--check"]) == 3


def test_pythons_own_server(digit_files, make):
    """It sends no ETag, and closes each connection."""
    from pathlib import Path

    paths, _ = digit_files
    root = Path(paths[0]).parent.parent

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    thread = running(server)
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        X = [f"{base}/{Path(p).relative_to(root).as_posix()}".replace(" ", "%20") for p in paths]
        np.testing.assert_array_equal(make().transform(X), make(cache=False).transform(paths))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
