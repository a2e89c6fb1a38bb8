"""The source package holds what the commands of README need."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What tools and builds make.
MADE = {"build", "dist", "quickstart_output"}


def test_every_folder_and_page_at_the_root_is_in_it():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    included = {path for pattern in patterns for path in ROOT.glob(pattern.lstrip("/"))}
    present = {path for path in ROOT.iterdir() if not path.name.startswith((".", "_"))}
    left_out = {path.name for path in present - included} - MADE
    assert left_out == {"pyproject.toml"}  # which each source package holds
