"""Groups of images: from DICOM headers, paths and functions, without identifiers in messages."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_featx import image_groups
from sklearn_featx.exceptions import FeatxWarning, ImageError, InputError, MissingDependencyError

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
IDS = ["Doe^Jane", "Roe^Rick", "Doe^Jane"]


@pytest.fixture
def scans(write_scan):
    return [
        write_scan(f"{i}.dcm", PIXELS + i, PatientID=patient, StudyInstanceUID=f"1.2.{i}")
        for i, patient in enumerate(IDS)
    ]


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"sub-{name}_run-{run}.png" for name in ("b", "a") for run in (1, 2)]
    for path in paths:
        Image.fromarray(PIXELS.astype(np.uint8)).save(path)
    return paths


class TestHeaders:
    def test_numbers_in_order_of_appearance(self, scans):
        groups = image_groups(scans)
        assert groups.dtype == np.intp
        assert groups.tolist() == [0, 1, 0]
        assert image_groups(scans, by="StudyInstanceUID").tolist() == [0, 1, 2]

    def test_raw_values_when_asked_for(self, scans):
        assert image_groups(scans, raw=True).tolist() == IDS

    def test_every_holder_of_files(self, scans):
        held = [Path(scans[0]), Path(scans[1]).read_bytes(), scans[2]]
        assert image_groups(held).tolist() == [0, 1, 0]
        assert image_groups(pd.DataFrame({"scan": scans})).tolist() == [0, 1, 0]

    def test_a_file_without_preamble(self, scans):
        assert image_groups([Path(scans[1]).read_bytes()[132:]], raw=True).tolist() == [IDS[1]]

    def test_a_missing_value_names_the_row(self, scans, write_scan):
        for identifiers in ({}, {"PatientID": ""}, {"PatientID": "  "}):
            anonymous = write_scan("anonymous.dcm", PIXELS, **identifiers)
            with pytest.raises(ImageError, match=r"row 1 .*has no PatientID in its header"):
                image_groups([scans[0], anonymous])

    def test_other_files_and_arrays(self, pictures):
        with pytest.raises(ImageError, match=r"row 0 .*is no DICOM file, so it has no PatientID"):
            image_groups(pictures)
        with pytest.raises(ImageError, match="row 0: is no file"):
            image_groups(PIXELS[None])

    def test_damaged_headers_quote_nothing(self, scans):
        data = Path(scans[0]).read_bytes()
        at = data.index(b"Doe^Jane")
        for damaged in (data[:140], data[: at - 8], data[: at - 8] + bytes(range(40))):
            with pytest.raises(ImageError) as error:
                image_groups([damaged])
            assert "Doe" not in str(error.value)

    def test_a_word_is_a_keyword(self, pictures):
        with pytest.raises(InputError, match=r"by='sub' is no keyword.*write '\(sub\)'"):
            image_groups(pictures, by="sub")
        for by in ("(sub)", re.compile("sub")):
            with pytest.warns(FeatxWarning):
                assert image_groups(pictures, by=by).tolist() == [0] * 4

    def test_unknown_keywords(self, scans):
        with pytest.raises(InputError, match="by='patientid' is no keyword of DICOM"):
            image_groups(scans, by="patientid")

    def test_without_pydicom(self, scans, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
        with pytest.raises(MissingDependencyError, match=r"sklearn-featx\[dicom\]"):
            image_groups(scans)


class TestPaths:
    @pytest.mark.parametrize("by", [r"sub-([a-z]+)", re.compile(r"sub-[a-z]+")])
    def test_expressions(self, by, pictures):
        assert image_groups(pictures, by=by).tolist() == [0, 0, 1, 1]

    def test_several_groups_of_an_expression(self, pictures):
        assert image_groups(pictures, by=r"sub-(\w)_run-(\d)").tolist() == [0, 1, 2, 3]
        assert image_groups(pictures, by=r"sub-(\w)|run-(\d)").tolist() == [0, 0, 1, 1]

    def test_a_row_of_several_files(self, pictures):
        rows = [pictures[:2], pictures[2:]]
        assert image_groups(rows, by="sub-[a-z]").tolist() == [0, 1]
        with pytest.raises(ImageError, match=r"row 1.*has images of 2 groups"):
            image_groups([pictures[:2], pictures[1:3]], by="sub-[a-z]")

    def test_functions(self, pictures):
        by = lambda path: Path(path).name[:5]  # noqa: E731
        assert image_groups(pictures, by=by).tolist() == [0, 0, 1, 1]
        assert image_groups(pictures, by=by, raw=True).tolist() == ["sub-b"] * 2 + ["sub-a"] * 2

    def test_a_path_without_match(self, pictures):
        with pytest.raises(ImageError, match=r"row 0 .*the path does not match by='patient_"):
            image_groups(pictures, by=r"patient_(\d+)")

    @pytest.mark.parametrize(
        "by",
        [
            lambda path: None,
            lambda path: [],
            lambda path: 1 / 0,
            lambda path: pd.NA,
            lambda path: pd.NaT,
            lambda path: np.datetime64("NaT"),
            lambda path: float("nan"),
            # The empty cell of a table: images of unknown patients are not one patient's.
            lambda path: " ",
        ],
    )
    def test_functions_that_give_no_group(self, by, pictures):
        with pytest.raises(ImageError, match=r"row 0 .*by r"):
            image_groups(pictures, by=by)

    @pytest.mark.parametrize("by", [r"(patient)?_run", r"patient-(\w*)|_run", r"(x)?_(y)?run"])
    def test_an_expression_without_its_group(self, by, pictures):
        with pytest.raises(ImageError, match=r"row 0 .*without a group in it"):
            image_groups(pictures, by=by)
        assert image_groups(pictures, by=r"(x)?(sub-\w)").tolist() == [0, 0, 1, 1]

    def test_bytes_have_no_path(self, pictures):
        with pytest.raises(ImageError, match="row 0: has no path"):
            image_groups([pictures[0].read_bytes()], by=r"sub-(\w)")

    @pytest.mark.parametrize("by", ["(", 3, None])
    def test_what_is_no_rule(self, by, pictures):
        with pytest.raises(InputError, match="by="):
            image_groups(pictures, by=by)

    def test_one_group_of_all_files_is_a_warning(self, pictures):
        with pytest.warns(FeatxWarning, match=r"puts all 4 files in one group.*folder of") as seen:
            assert image_groups(pictures, by=r"(\w+)/").tolist() == [0] * 4
        assert len(seen) == 1
        assert seen[0].filename == __file__
        assert pictures[0].parts[1] not in str(seen[0].message)

    def test_one_group_where_it_is_right(self, pictures):
        assert image_groups(pictures[:1], by=r"(\w+)/").tolist() == [0]
        assert image_groups([pictures[0]] * 2, by=r"(\w+)/").tolist() == [0, 0]
        # A function is the user's own rule.
        assert image_groups(pictures, by=lambda path: "all").tolist() == [0] * 4

    def test_the_folder_of_absolute_paths(self, pictures):
        paths = []
        for patient in ("a", "b"):
            folder = pictures[0].parent / patient
            folder.mkdir()
            paths += [folder / f"{number}.png" for number in range(2)]
        for path in paths:
            path.write_bytes(pictures[0].read_bytes())
        assert image_groups(paths, by=r"([^/]+)/[^/]+$").tolist() == [0, 0, 1, 1]
