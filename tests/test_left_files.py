"""A run leaves no file that its user did not ask for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXTRACTIONS = """
from sklearn.datasets import load_digits
from sklearn_featx import PretrainedFeatureExtractor

images = load_digits().images[:12] / 16
for more in ({}, {"cache": "rows"}):
    PretrainedFeatureExtractor(image_size=32, n_jobs=2, **more).fit_transform(images)
"""
FINE_TUNING = """
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn_featx import FineTuneClassifier

digits = load_digits()
images, labels = digits.images[:24] / 16, digits.target[:24] % 2
tuner = FineTuneClassifier(image_size=32, max_epochs=1)
GridSearchCV(tuner, {"unfreeze_depth": [0, 1]}, cv=2, n_jobs=2).fit(images, labels)
"""


@pytest.fixture
def folders(tmp_path):
    """Home, working folder and folder of temporary files, all empty."""
    found = [tmp_path / name for name in ("home", "work", "temporary")]
    for folder in found:
        folder.mkdir()
    return found


def left_by(code, folders):
    """Run code in a process of its own; return the files that are left."""
    home, work, temporary = map(str, folders)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env={**kept, "HOME": home, "USERPROFILE": home, "TMPDIR": temporary, "TEMP": temporary},
        capture_output=True,
        check=True,
    )
    return sorted(
        str(path.relative_to(folder.parent))
        for folder in folders
        for path in Path(folder).rglob("*")
        if path.is_file()
    )


@pytest.mark.slow
def test_a_search_leaves_nothing_without_a_folder_for_the_cache(folders):
    assert left_by(FINE_TUNING, folders) == []


def test_a_folder_for_the_cache_holds_the_store_and_nothing_else_is_left(folders):
    left = left_by(EXTRACTIONS, folders)
    assert left
    assert all(Path(name).parts[:2] == ("work", "rows") for name in left)
