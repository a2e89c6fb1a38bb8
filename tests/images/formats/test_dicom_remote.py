"""Patients of remote DICOM files: groups, the command line, and the warning of `plan_search`."""

import io
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from sklearn_featx import PretrainedFeatureExtractor, image_groups, plan_search
from sklearn_featx.cli._main import main
from sklearn_featx.exceptions import ImageError

pytest.importorskip("fsspec")
pytest.importorskip("pydicom")

PATIENTS = ["Secret^Ann", "Secret^Bob", "Secret^Ann", "Secret^Cyd"]
GROUPS = [0, 1, 0, 2]
SMALL = ["--image-size", "32", "--quiet"]


@pytest.fixture
def scans(make_dicom):
    """Four files of three patients, by name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (4, 16, 16)).astype(np.uint16)
    options = {"WindowCenter": 2048, "WindowWidth": 4096}
    return {
        f"IM{i}.dcm": make_dicom(pixels[i], PatientID=patient, PatientName=patient, **options)
        for i, patient in enumerate(PATIENTS)
    }


@pytest.fixture
def memory(scans, in_memory):
    return in_memory("scans", scans)


@pytest.fixture
def server(scans):
    """A server of the files on the loopback, which counts its requests."""
    pytest.importorskip("aiohttp", reason="needs the extra remote")
    requests = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests[self.path] += 1
            data = scans.get(self.path[1:].replace(".png", ".dcm"))
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.counted = requests
        server.addresses = [f"http://127.0.0.1:{server.server_port}/{name}" for name in scans]
        yield server
        server.shutdown()
        thread.join()


def test_groups_of_addresses(memory):
    assert image_groups(memory).tolist() == GROUPS
    assert image_groups(memory, raw=True).tolist() == PATIENTS
    assert image_groups(memory, by=r"IM(\d)").tolist() == [0, 1, 2, 3]
    assert image_groups([memory[:1], [memory[2]], memory[1:2]]).tolist() == [0, 0, 1]
    with pytest.raises(ImageError, match=r"row 1: has images of 2 groups"):
        image_groups([memory[:1], memory[:2]])


def test_each_file_is_fetched_once(server):
    assert image_groups(server.addresses).tolist() == GROUPS
    assert list(server.counted.values()) == [1] * 4
    # A path needs no file.
    assert image_groups(server.addresses, by=r"IM(\d)").tolist() == [0, 1, 2, 3]
    assert image_groups(server.addresses, by=lambda path: path[-5]).tolist() == [0, 1, 2, 3]
    assert sum(server.counted.values()) == 4


def test_a_missing_file_has_its_address_without_a_password(server):
    address = server.addresses[0].replace("//", "//user:secret@").replace("IM0", "none")
    with pytest.raises(ImageError, match=r"row 1 .*none\.dcm") as caught:
        image_groups([server.addresses[0], address])
    assert "secret" not in str(caught.value)


def test_plan_search_warns_of_patients(memory, server, small_net):
    extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=False)
    for X in (memory, server.addresses):
        plan = plan_search(extractor, X, cv=KFold(2), timed=False, near_copies=False)
        assert "patients (PatientID): 1" in plan.warning
        assert plan.groups.tolist() == GROUPS
        assert "Secret" not in str(plan)
    # For the digest of its content, and for its header.
    assert set(server.counted.values()) == {2}


def test_files_are_not_fetched_for_patients_in_vain(server, small_net):
    extractor = PretrainedFeatureExtractor(small_net, image_size=16, cache=False)
    # Without folds there is nothing to warn of.
    plan_search(extractor, server.addresses, timed=False)
    assert set(server.counted.values()) == {1}
    server.counted.clear()
    pictures = [address.replace(".dcm", ".png") for address in server.addresses]
    plan_search(extractor, pictures, cv=KFold(2), timed=False, near_copies=False)
    assert set(server.counted.values()) == {1}


class TestCommandLine:
    def extract(self, source, tmp_path, *options):
        output = tmp_path / "features.csv"
        command = ["extract", str(source), "-o", str(output), "--group-by", "PatientID"]
        assert main([*command, *SMALL, *options]) == 0
        assert "Secret" not in output.read_text("utf-8")
        return pd.read_csv(output, dtype={"group": str}, keep_default_na=False)

    def test_a_folder_of_a_bucket(self, memory, tmp_path):
        table = self.extract("memory://scans", tmp_path)
        assert table["path"].tolist() == [f"IM{i}.dcm" for i in range(4)]
        assert table["group"].tolist() == [str(group) for group in GROUPS]

    def test_a_table_of_files_and_addresses(self, memory, server, scans, tmp_path, capsys):
        (tmp_path / "a.dcm").write_bytes(scans["IM1.dcm"])
        cells = [memory[0], server.addresses[1], "a.dcm", server.addresses[2]]
        pd.DataFrame({"scan": cells, "age": 50}).to_csv(tmp_path / "scans.csv", index=False)
        table = self.extract(tmp_path / "scans.csv", tmp_path, "--column", "scan")
        assert table["group"].tolist() == ["0", "1", "1", "0"]
        assert "Secret" not in capsys.readouterr().err

    def test_an_archive(self, scans, tmp_path):
        with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
            for name, data in scans.items():
                archive.writestr(f"ward/{name}", data)
        table = self.extract(tmp_path / "scans.zip", tmp_path)
        assert table["group"].tolist() == [str(group) for group in GROUPS]

    def test_addresses_on_standard_input(self, memory, tmp_path, monkeypatch, capsys):
        lines = "\n".join([*memory, "memory://scans/none.dcm"]).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
        output = tmp_path / "features.csv"
        command = ["extract", "-", "-o", str(output), "--group-by", "PatientID", *SMALL]
        assert main(command) == 3
        table = pd.read_csv(output, dtype={"group": str}, keep_default_na=False)
        assert table["group"].tolist() == [*(str(group) for group in GROUPS), ""]
        assert "none.dcm': no group: " in capsys.readouterr().err
