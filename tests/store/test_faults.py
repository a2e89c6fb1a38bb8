"""The faults of benchmarks/store_faults.py: a sample of each here, all of them with `-m slow`."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "store_faults.py"
SPEC = importlib.util.spec_from_file_location("store_faults", PATH)
faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(faults)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def sample_and_all(sample, everything):
    full = pytest.param(everything, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])
    return pytest.mark.parametrize("n", [sample, full])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@sample_and_all(20, 1000)
def test_flipped_bits(folder, n):
    counts = faults.flipped_bits(folder, n)
    assert counts == {"trials": n, "wrong": 0, "raised": 0, "unrepaired": 0, "warned": 0}


@sample_and_all(20, 500)
def test_cut_deleted_and_replaced_files(folder, n):
    counts = faults.cut_deleted_replaced(folder, n)
    assert counts == {"trials": n, "wrong": 0, "raised": 0, "unrepaired": 0, "warned": 0}


@sample_and_all(5, 200)
def test_killed_writers(folder, n):
    counts = faults.killed_writers(folder, n)
    assert counts.pop("rows") > 0
    assert counts.pop("kills") == n
    assert set(counts.values()) == {0}, counts


def test_processes_that_want_the_same_rows(folder):
    counts = faults.shared_keys(folder)
    assert counts["wrong"] == 0
    assert counts["keys"] <= counts["computed"] <= 1.2 * counts["keys"]


@sample_and_all(1, 10)
def test_dead_holders_of_claims(folder, n):
    assert faults.dead_holders(folder, n)["longest delay"] <= 5


@sample_and_all(3, 60)
def test_eviction_under_load(folder, n):
    counts = faults.evicting(folder, n)
    assert (counts["raised"], counts["wrong"], counts["warned"]) == (0, 0, 0)
    assert min(counts["written"], counts["read"]) > 0
    assert counts["largest"] <= counts["limit"]


@sample_and_all(6, 20)
def test_full_disk(folder, n):
    counts = faults.full_disk(folder, n)
    assert (counts["raised"], counts["wrong"]) == (0, 0)
    assert counts["most warnings"] == 1


def test_unusable_paths(folder):
    counts = faults.unusable_paths(folder)
    assert (counts["raised"], counts["wrong"], counts["left behind"]) == (0, 0, 0)
    assert counts["most warnings"] == 1
    assert counts["file"] == "mine"
