"""Names of files that the encoding of a console lacks."""

import csv
import io
import sys

import pytest
from PIL import Image

from sklearn_featx.cli._main import main


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_a_console_lacks_are_escaped_there_and_whole_in_the_table(
    encoding, tmp_path, monkeypatch
):
    (tmp_path / "図").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "図" / "日本.png")
    (tmp_path / "図" / "défaut.png").write_bytes(b"no image")
    said = io.BytesIO()
    # As Python opens them.
    for stream, errors in {"stdout": "strict", "stderr": "backslashreplace"}.items():
        console = io.TextIOWrapper(said, encoding, errors, write_through=True)
        monkeypatch.setattr(sys, stream, console)
    arguments = ["extract", str(tmp_path), "-o", str(tmp_path / "é.csv"), "--image-size", "32"]
    assert main([*arguments, "--on-error", "nan"]) == 3
    text = said.getvalue().decode(encoding)
    assert "\\u56f3/d\\xe9faut.png" in text or "\\u56f3/défaut.png" in text
    with (tmp_path / "é.csv").open(encoding="utf-8", newline="") as table:
        names = [row[0] for row in csv.reader(table)]
    assert sorted(names[1:]) == ["図/défaut.png", "図/日本.png"]
