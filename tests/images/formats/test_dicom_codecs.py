"""Codecs that are missing: a process in which their packages are not installed."""

import json
import re
import subprocess
import sys

import pytest

pytest.importorskip("data_store")

# Packages are hidden as a plain installation lacks them: without modules and entry points.
PROGRAM = """
import importlib.metadata, json, sys, warnings
warnings.simplefilter("ignore")
for name in ("gdcm", "openjpeg", "libjpeg", "rle"):
    sys.modules[name] = None
original = importlib.metadata.entry_points
def without(*args, **kwargs):
    found = original(*args, **kwargs)
    return () if "pylibjpeg" in str(kwargs.get("group")) else found
importlib.metadata.entry_points = without
from pydicom.data import get_testdata_file
from sklearn_featx.exceptions import ImageError
from sklearn_featx.images import decode
said = {}
for name in sys.argv[1:]:
    try:
        said[name] = str(decode(get_testdata_file(name, download=False)).shape)
    except ImageError as error:
        said[name] = error.reason
print(json.dumps(said))
"""
WANTED = {
    # pydicom and Pillow read these.
    "MR_small_RLE.dcm": "(64, 64, 1)",
    "MR_small_jp2klossless.dcm": "(64, 64, 1)",
    "SC_rgb_dcmtk_+eb+cr.dcm": "(100, 100, 3)",
    # Others name what is missing.
    "JPEG-LL.dcm": "lossless JPEG, for which a package is missing. .* pip install python-gdcm$",
    "JPEG-lossy.dcm": "JPEG of 12 bits, for which a package .* pip install python-gdcm$",
    "MR_small_jpeg_ls_lossless.dcm": "JPEG-LS, for which a package .* pip install python-gdcm$",
    "GDCMJ2K_TextGBR.dcm": "JPEG 2000, which the installed .* pip install pylibjpeg-openjpeg$",
}


def test_each_missing_package_is_named():
    command = [sys.executable, "-c", PROGRAM, *WANTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    said = json.loads(done.stdout)
    for name, wanted in WANTED.items():
        if wanted.startswith("("):
            assert said[name] == wanted
        else:
            assert re.search(wanted, said[name]), said[name]
