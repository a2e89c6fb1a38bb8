"""The command stages: a table."""

import pickle

from sklearn_featx import backbone_names, backbone_stages
from sklearn_featx.cli._main import main


def test_stages_are_a_table(capsys):
    assert main(["stages", "efficientnet_lite0"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "stage"
    assert len({len(line) for line in (header, *rows)}) == 1
    assert rows[-1].split() == [
        "conv_head", "flatten", "412,160", "1280", "94.8", "5.0", "1", "412,160",
    ]  # fmt: skip
    assert main(["stages", "efficientnet_lite0", "--granularity", "block"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > len(rows) + 1


def test_an_unknown_backbone_is_named_by_the_argument(capsys):
    assert main(["stages", "nosuch"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sklearn-featx: error: NAME: there is no 'nosuch'. Did you mean one of ")
    # Whole names, of which the last stands behind the gap.
    names = line.partition("[")[2].removesuffix("]?").split(", ")
    assert {name.strip("'") for name in names} - {"..."} < set(backbone_names())


def test_the_command_prints_what_the_function_returns(capsys):
    main(["stages", "efficientnet_lite0"])
    stages = backbone_stages("efficientnet_lite0")
    assert capsys.readouterr().out == f"{stages}\n"
    assert stages == list(stages)
    assert str(stages[-1:]).splitlines()[1].startswith("conv_head")
    assert stages._repr_html_().count("<tr>") == len(stages) + 1
    assert pickle.loads(pickle.dumps(stages)) == stages
