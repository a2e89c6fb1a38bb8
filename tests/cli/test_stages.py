"""The command stages: a table."""

from sklearn_featx.cli._main import main


def test_stages_are_a_table(capsys):
    assert main(["stages", "efficientnet_lite0"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "stage"
    assert len({len(line) for line in (header, *rows)}) == 1
    assert rows[-1].split() == [
        "conv_head", "412,160", "1280", "94.8", "5.0", "1", "412,160",
    ]  # fmt: skip
    assert main(["stages", "efficientnet_lite0", "--granularity", "block"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > len(rows) + 1
