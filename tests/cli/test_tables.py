"""Tables as a source of the command extract: what is said of those that have no such column."""

import pytest
from PIL import Image

from sklearn_featx.cli._main import main

COMMAND = ["extract", "--check"]


@pytest.mark.parametrize(
    ("name", "text", "column", "wanted"),
    [
        ("t.csv", "", "a", "'t.csv' is empty: its first line names no column"),
        ("t.csv", "\n\n", None, "'t.csv' is empty"),
        ("t.tsv", "", None, "'t.tsv' is empty"),
        ("t.csv", "photo;y\na.png;1\n", "photo", "separated by semicolons: save it with commas."),
        ("t.csv", "photo;y\na.png;1\n", None, "separated by semicolons: save it with commas."),
        ("t.csv", "photo\ty\n", "photo", "by tabs: save it with commas, or name the file .tsv."),
        ("t.tsv", "photo,y\n", "photo", "separated by commas: save it with tabs."),
        ("t.csv", "photo|y\n", "photo", "separated by bars: save it with commas."),
        ("t.csv", "photo,y;z\n", "image", "has the columns photo, y;z.\n"),
    ],
)
def test_what_is_said_of_a_table(name, text, column, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    more = [] if column is None else ["--column", column]
    assert main([*COMMAND, name, *more]) == 2
    said = capsys.readouterr().err
    assert wanted in said
    assert said.count("\n") == 1


def test_one_column_and_one_image(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("a;b.png")
    (tmp_path / "t.csv").write_text("photo\na;b.png\n")
    assert main([*COMMAND, "t.csv"]) == 0
    assert capsys.readouterr().out == "1 image is readable\n"
    assert main(["extract", "t.csv", "-o", "f.csv", "--image-size", "32"]) == 0
    assert capsys.readouterr().out == "1 image, 1280 features each: f.csv\n"
    # The name of a column may have a semicolon where it is asked for.
    (tmp_path / "t.csv").write_text("a;b\na;b.png\n")
    assert main([*COMMAND, "t.csv", "--column", "a;b"]) == 0
