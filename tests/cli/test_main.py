"""The program: exit codes, interrupts, versions, real processes."""

import os
import subprocess
import sys

import numpy as np
import pytest

import sklearn_featx
from sklearn_featx.cli._main import main
from sklearn_featx.store import FeatureStore

SMALL = ["--image-size", "64"]


def test_an_interrupt_ends_without_traceback(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn_featx.backbones.backbone_names", interrupt)
    assert main(["backbones"]) == 130
    assert capsys.readouterr().err == "sklearn-featx: interrupted\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"sklearn-featx {sklearn_featx.__version__}\n"


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        (["extract", "", "--check"], "SOURCE"),
        (["extract", "t.csv", "--check", "--root", ""], "--root"),
        (["extract", ".", "--check", "--cache", ""], "--cache"),
        (["extract", ".", "-o", ""], "-o/--output"),
        (["look", "", ".", "-o", "p.html"], "MODEL"),
        (["look", "m.skops", "", "-o", "p.html"], "FOLDER"),
        (["look", "m.skops", ".", "-o", ""], "-o/--output"),
        (["look", "m.skops", ".", "-o", "p.html", "--known", ""], "--known"),
        (["store", "", "info"], "PATH"),
    ],
)
def test_an_empty_path_is_a_usage_error(command, argument, capsys):
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {argument}: '' is empty, as an unset variable of the shell is." in line


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    # Of the commands that print, the one that starts without PyTorch.
    store = FeatureStore(tmp_path)
    store.rows("recipe").put_many(["key"], np.ones((1, 2), np.float32))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "sklearn_featx", "store", tmp_path, "info"],
            check=False,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_real_process(pictures, tmp_path):
    output = tmp_path / "my features.npz"
    done = subprocess.run(
        [sys.executable, "-m", "sklearn_featx", "extract", pictures, "-o", output, *SMALL],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    assert "4 images" in done.stdout
    assert "images/s" in done.stderr
    with np.load(output, allow_pickle=False) as arrays:
        assert arrays["features"].shape == (4, 1280)

    failed = subprocess.run(
        [sys.executable, "-m", "sklearn_featx", "extract", "nowhere", "-o", output],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["extract", "--help"], ["extract", "nowhere", "-o", "f.npz"]]
)
def test_help_and_a_wrong_source_do_not_wait_for_large_packages(arguments):
    code = (
        "import sys\n"
        "from sklearn_featx.cli._main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print({'torch', 'PIL', 'sklearn', 'scipy', 'pandas'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n")
