"""The command backbones: names by part or pattern."""

import sklearn_featx
from sklearn_featx.cli._main import main


def test_backbones_are_listed_by_part_or_pattern(capsys):
    assert main(["backbones"]) == 0
    assert capsys.readouterr().out.split() == sklearn_featx.backbone_names()
    assert main(["backbones", "ResNet1"]) == 0
    assert "resnet18" in capsys.readouterr().out.split()
    assert main(["backbones", "resnet1?"]) == 0
    assert capsys.readouterr().out.split() == ["resnet18"]
