"""Names of files that the encoding of a console lacks."""

import csv
import os
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_a_console_lacks_are_escaped_there_and_whole_in_the_table(encoding, tmp_path):
    (tmp_path / "図").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "図" / "日本.png")
    (tmp_path / "図" / "défaut.png").write_bytes(b"no image")
    arguments = ["extract", tmp_path, "-o", tmp_path / "é.csv", "--image-size", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "sklearn_featx", *arguments, "--on-error", "nan"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    said = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 3, said
    assert "Traceback" not in said
    assert "\\u56f3/d\\xe9faut.png" in said or "\\u56f3/défaut.png" in said
    with (tmp_path / "é.csv").open(encoding="utf-8", newline="") as table:
        names = [row[0] for row in csv.reader(table)]
    assert sorted(names[1:]) == ["図/défaut.png", "図/日本.png"]
