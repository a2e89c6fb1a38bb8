"""Tables as a source of the command extract: what is said of those that have no such column."""

import pandas as pd
import pytest
from PIL import Image

from sklearn_featx.cli._main import main

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

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


@pytest.mark.parametrize("output", ["t.csv", "link.csv", "folder/../t.csv"])
def test_the_source_is_not_overwritten(output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("a.png")
    (tmp_path / "folder").mkdir()
    table = tmp_path / "t.csv"
    table.write_text("photo,label\na.png,cat\n")
    (tmp_path / "link.csv").symlink_to(table)
    command = ["extract", "t.csv", "--column", "photo", "--image-size", "32", "-o"]
    assert main([*command, output]) == 2
    assert f"--output: '{output}' is SOURCE, which would be lost" in capsys.readouterr().err
    assert table.read_text() == "photo,label\na.png,cat\n"
    (tmp_path / "f.csv").write_text("older")
    assert main([*command, "f.csv"]) == 0


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


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_two_columns_of_one_name_are_an_error(suffix, tmp_path, capsys):
    table = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        columns = [pyarrow.array(["a.png"]), pyarrow.array(["b.png"])]
        parquet.write_table(pyarrow.Table.from_arrays(columns, names=["photo", "photo"]), table)
    else:
        text = "photo,photo\na.png,b.png\n"
        table.write_text(text.replace(",", "\t") if suffix == ".tsv" else text)
    assert main([*COMMAND, str(table), "--column", "photo"]) == 2
    said = capsys.readouterr().err
    assert f"--column: 2 columns of 't{suffix}' have the name 'photo'. Rename all but one" in said
    assert said.count("\n") == 1


def test_a_row_with_more_cells_than_the_header_has_its_line(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text('y,photo\n"1\n2",a.png\n\n3,b,c.png\n')
    assert main([*COMMAND, str(table), "--column", "photo"]) == 2
    said = capsys.readouterr().err
    assert "SOURCE: line 5 of " in said
    assert "t.csv' has 3 cells, the header 2. Quote a cell" in said


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_that_is_not_utf_8_is_an_error(encoding, suffix, tmp_path, capsys):
    table = tmp_path / f"t{suffix}"
    table.write_bytes("photo\ncafé.png\n".encode(encoding))
    assert main([*COMMAND, str(table), "--column", "photo"]) == 2
    assert f"t{suffix}' is not UTF-8 text: save it as UTF-8." in capsys.readouterr().err


def test_an_empty_text_is_a_missing_entry_in_every_table(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"photo": ["a.png", "", None], "y": 0})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    said = []
    for name in ("t.parquet", "t.csv"):
        assert main([*COMMAND, str(tmp_path / name), "--column", "photo", "-q"]) == 3
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "'row 1': the entry is missing" in said[0]
    assert said[0].count("the entry is missing") == 2


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 2], "int64"), ([0.5, 1.5], "double"), ([True, False], "bool")]
)
def test_a_column_of_numbers_names_no_image(values, kind, tmp_path, capsys):
    table = tmp_path / "t.parquet"
    pd.DataFrame({"y": values, "photo": "a.png"}).to_parquet(table)
    assert main([*COMMAND, str(table), "--column", "y"]) == 2
    said = capsys.readouterr().err
    assert f"--column 'y' of 't.parquet' holds {kind}: expected paths" in said
    assert said.count("\n") == 1


def test_a_missing_file_of_a_table_was_looked_up_at_its_root(tmp_path, monkeypatch, capsys):
    (tmp_path / "tables").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    missing = tmp_path / "none.png"
    (tmp_path / "tables" / "t.csv").write_text(f"photo\na.png\n{missing}\n")
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "tables/t.csv", "-q"]) == 3
    said = capsys.readouterr().err.splitlines()
    folder = str(tmp_path / "tables")
    assert said == [
        "sklearn-featx: 'a.png': no such file. Relative paths of the table start at "
        f"{folder!r}; --root names another folder.",
        f"sklearn-featx: {str(missing)!r}: no such file.",
    ]
    computed = ["extract", "tables/t.csv", "-q", "-o", "f.csv"]
    for options in ([], ["--on-error", "raise"]):
        assert main([*computed, *options]) == 2
        said = capsys.readouterr().err
        assert f"start at {folder!r}; --root names another folder." in said
        assert said.count("\n") == 1
    assert main([*COMMAND, "tables/t.csv", "--root", ".", "-q"]) == 3
    assert "'a.png'" not in capsys.readouterr().err
