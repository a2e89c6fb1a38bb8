"""The command store: what it says, checks and deletes."""

import numpy as np
import pytest

from sklearn_featx.cli._main import main
from sklearn_featx.cli._store import size_in_words
from sklearn_featx.store import FeatureStore

SMALL = ["--image-size", "64"]


def one_line(capsys):
    """The one line on standard error; nothing may be on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sklearn-featx: error: ")
    return err


class TestStore:
    @pytest.fixture
    def remembered(self, pictures, tmp_path, capsys):
        """A folder with the features of the pictures, and what else somebody put into it."""
        folder = tmp_path / "rows"
        output = ["-o", str(tmp_path / "features.npz"), "--quiet"]
        assert main(["extract", str(pictures), *output, "--cache", str(folder), *SMALL]) == 0
        (folder / "mine.txt").write_text("not the store's")
        capsys.readouterr()
        return folder

    def run(self, folder, *arguments):
        return main(["store", str(folder), *arguments])

    def test_extract_remembers(self, remembered, pictures, tmp_path, trunk_rows):
        output = tmp_path / "again.npz"
        options = ["--cache", str(remembered), "--quiet", *SMALL]
        assert main(["extract", str(pictures), "-o", str(output), *options]) == 0
        assert trunk_rows == []
        with np.load(output) as again, np.load(tmp_path / "features.npz") as first:
            np.testing.assert_array_equal(again["features"], first["features"])

    def test_info(self, remembered, capsys):
        assert self.run(remembered, "info") == 0
        rows, files, recipe = capsys.readouterr().out.splitlines()
        assert rows.startswith("4 rows, ")
        # Files that were written just now are not known yet.
        assert files.endswith("files with known content")
        assert recipe.split()[:2] == ["4", "efficientnet_lite0,"]

    def test_verify(self, remembered, capsys):
        assert self.run(remembered, "verify") == 0
        assert capsys.readouterr().out == "4 rows checked, 0 damaged records removed\n"

    def test_verify_finds_and_says_what_is_damaged(self, remembered, capsys):
        # It empties the log and closes the file.
        assert self.run(remembered, "prune") == 0
        capsys.readouterr()
        (file,) = remembered.glob("*.sqlite")
        content = bytearray(file.read_bytes())
        # The header of a row; 20 bytes on are its values.
        content[content.index(b"fxrw") + 20] ^= 1
        file.write_bytes(content)
        assert self.run(remembered, "verify") == 0
        assert capsys.readouterr().out == "4 rows checked, 1 damaged records removed\n"
        assert FeatureStore(remembered).info().n_rows == 3

    def test_prune_deletes_no_row_unless_told_to(self, remembered, capsys):
        assert self.run(remembered, "prune") == 0
        assert capsys.readouterr().out.startswith("0 rows deleted, ")
        with FeatureStore(remembered) as store:
            values = np.zeros((8, 2**18), dtype=np.float32)
            store.rows("larger").put_many([str(i) for i in range(8)], values)
        assert self.run(remembered, "prune", "--max-size", "8MiB") == 0
        assert not capsys.readouterr().out.startswith("0 rows deleted, ")
        info = FeatureStore(remembered).info()
        assert 0 < info.n_rows < 12
        assert info.n_bytes <= 8 * 2**20

    def test_clear_leaves_what_is_not_the_stores(self, remembered, capsys):
        assert self.run(remembered, "clear") == 0
        assert capsys.readouterr().out == "4 rows deleted\n"
        assert not list(remembered.glob("*.sqlite*"))
        assert (remembered / "mine.txt").read_text() == "not the store's"

    @pytest.mark.parametrize("action", ["info", "verify", "prune", "clear"])
    def test_no_store_is_made_where_there_is_none(self, action, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        for name in ("empty", "nowhere"):
            assert self.run(tmp_path / name, action) == 2
            assert "this host has no store in" in one_line(capsys)
        assert [path.name for path in tmp_path.rglob("*")] == ["empty"]

    @pytest.mark.parametrize("size", ["much", "1MB"])
    def test_a_wrong_size_is_one_line(self, size, remembered, capsys):
        assert self.run(remembered, "prune", "--max-size", size) == 2
        assert f"max_size={size!r}" in one_line(capsys)

    @pytest.mark.parametrize(
        ("n_bytes", "words"),
        [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_960, "1.0 MB"), (10**16, "10000.0 TB")],
    )
    def test_sizes_are_said_in_words(self, n_bytes, words):
        assert size_in_words(n_bytes) == words
