"""Related images in training and test: copies, near copies, patients and the user's groups."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits
from sklearn.model_selection import GroupKFold, KFold

from sklearn_featx import ImageReader, PretrainedFeatureExtractor, plan_search, slices
from sklearn_featx.images import as_image_collection
from sklearn_featx.model_selection._near_copies import near_copies, perceptual_hashes
from sklearn_featx.model_selection._related_images import Relation, together


def jpeg(picture, quality=20):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def changed(array):
    """An image as it is, compressed, small, darker and with less contrast."""
    picture = Image.fromarray(array)
    half = picture.resize((picture.width // 2, picture.height // 2))
    return [
        picture,
        jpeg(picture),
        half,
        ImageEnhance.Brightness(picture).enhance(0.8),
        ImageEnhance.Contrast(picture).enhance(0.7),
    ]


def pairs(entries):
    return sorted(near_copies(perceptual_hashes(as_image_collection(entries))))


class TestNearCopies:
    def test_changed_photographs(self, photographs):
        entries = [entry for photo in photographs for entry in changed(photo)]
        wanted = [(i, j) for k in (0, 5) for i in range(k, k + 5) for j in range(i + 1, k + 5)]
        assert pairs(entries) == wanted

    def test_a_part_of_an_image_is_another_image(self, photographs):
        picture = Image.fromarray(photographs[0])
        part = picture.crop((32, 21, 608, 406))
        assert pairs([picture, part]) == []

    def test_all_pairs_are_found(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (300, 16, 16), dtype=np.uint8)
        images[150:] = np.clip(images[:150] + rng.normal(0, 3, (150, 16, 16)), 0, 255)
        hashes = perceptual_hashes(as_image_collection(images))
        correlations = np.triu(hashes @ hashes.T, 1)
        assert sorted(near_copies(hashes)) == list(
            zip(*np.nonzero(correlations >= 0.995), strict=True)
        )
        assert len(list(near_copies(hashes))) == 150

    def test_different_digits_are_not_alike(self):
        digits = (load_digits().images[:500] * 15.9).astype(np.uint8)
        assert pairs(digits) == []

    def test_empty_and_unreadable_images_are_like_no_other(self, tmp_path):
        paths = [tmp_path / f"{i}.png" for i in range(4)]
        for path in paths[:2]:
            Image.new("L", (20, 20), 200).save(path)
        for path in paths[2:]:
            path.write_bytes(b"no image")
        assert pairs([str(path) for path in paths]) == []
        assert pairs([str(paths[0])]) == []


def test_chains_are_one_group():
    relations = [
        Relation("a", np.array([0, 0, 1, 2, 3])),
        Relation("b", np.array([0, 1, 1, 2, 3])),
        Relation("c", np.array([0, 1, 2, 3, 3])),
    ]
    assert together(relations).tolist() == [0, 0, 0, 1, 1]


class TestPlan:
    def plan(self, net, X, **arguments):
        extractor = PretrainedFeatureExtractor(net, image_size=8, cache=False)
        return plan_search(extractor, X, timed=False, **arguments)

    def test_near_copies(self, small_net, photographs):
        X = [*changed(photographs[0])[:3], *changed(photographs[1])[:3]]
        planned = self.plan(small_net, X, cv=KFold(3))
        assert planned.groups.tolist() == [0, 0, 0, 1, 1, 1]
        assert "at once: images with near copies (16 x 16 gray pixels" in planned.warning
        assert "0.995): 2. " in planned.warning
        assert self.plan(small_net, X, cv=KFold(2)).warning is None
        # The groups of the plan serve a splitter that needs some.
        assert self.plan(small_net, X, cv=GroupKFold(2)).warning is None

    def test_near_copies_of_bags_have_all_images_alike(self, small_net, photographs):
        first, second = (changed(photo)[:3] for photo in photographs)
        black = np.zeros((20, 20), np.uint8)
        X = [
            [first[0], second[0], black],
            [first[1], first[2], black],
            [first[2], second[1], black],
            [first[1], second[2]],
        ]
        reader = ImageReader(bag_pooling="mean")
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False, reader=reader)
        planned = plan_search(extractor, X, timed=False, cv=KFold(4))
        assert planned.groups.tolist() == [0, 1, 0, 2]

    def test_near_copies_are_not_looked_for_without_folds(self, small_net, photographs):
        X = changed(photographs[0])[:2]
        assert self.plan(small_net, X).groups.tolist() == [0, 1]
        without = self.plan(small_net, X, cv=KFold(2), near_copies=False)
        assert (without.groups.tolist(), without.warning) == ([0, 1], None)

    def test_copies_are_counted_once(self, small_net, digits):
        X = [*digits[0][:4], *digits[0][:4]]
        planned = self.plan(small_net, X, cv=KFold(2))
        assert "at once: images with copies: 4. This" in planned.warning

    def test_groups_of_the_user(self, small_net, digits):
        X, groups = digits[0][:12], np.repeat(["ann", "bob", "eve"], 4)
        planned = self.plan(small_net, X, cv=KFold(2), groups=groups)
        assert "at once: groups: 1. This" in planned.warning
        assert "bob" not in planned.warning
        assert planned.groups.tolist() == np.repeat([0, 1, 2], 4).tolist()
        assert self.plan(small_net, X, cv=GroupKFold(3), groups=groups).warning is None
        with pytest.raises(ValueError, match=r"groups has shape \(3,\): expected .* 12 images"):
            self.plan(small_net, X, cv=KFold(2), groups=[1, 2, 3])

    def test_groups_of_the_user_do_not_hide_near_copies(self, small_net, photographs):
        X = [*changed(photographs[0])[:2], *changed(photographs[1])[:2]]
        planned = self.plan(small_net, X, cv=GroupKFold(2), groups=[0, 1, 2, 3])
        assert "images with near copies" in planned.warning
        assert "0.995): 2. " in planned.warning

    def test_slices_of_one_volume(self, small_net, tmp_path, monkeypatch):
        nibabel = pytest.importorskip("nibabel")
        rng = np.random.default_rng(0)
        X = []
        for name in ("a", "b"):
            voxels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
            X += slices(tmp_path / f"{name}.nii")
        planned = self.plan(small_net, X, cv=KFold(3))
        assert "at once: files whose parts are several images: 2. This" in planned.warning
        assert planned.groups.tolist() == [0, 0, 0, 1, 1, 1]
        assert self.plan(small_net, X, cv=KFold(2)).warning is None
        # A relative path names the file of an absolute one.
        monkeypatch.chdir(tmp_path)
        others = self.plan(small_net, [X[0], *slices("a.nii")[1:], *X[3:]], cv=KFold(3))
        assert others.groups.tolist() == [0, 0, 0, 1, 1, 1]
        # A file that is twice in X is a copy.
        bag = [X[0], X[3]]
        reader = ImageReader(bag_pooling="mean")
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False, reader=reader)
        groups = plan_search(extractor, [X[:2], [X[5]], X[:2], bag], timed=False).groups
        assert groups.tolist() == [0, 0, 0, 0]
        groups = plan_search(extractor, [X[:2], [X[5]], X[:2]], timed=False).groups
        assert groups.tolist() == [0, 1, 0]

    def test_slices_whose_channels_are_images(self, small_net, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        voxels = np.random.default_rng(0).integers(0, 256, (8, 8, 4)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
        reader = ImageReader(channels="each", bag_pooling="mean")
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False, reader=reader)
        planned = plan_search(extractor, slices(tmp_path / "a.nii"), cv=KFold(2), timed=False)
        assert "files whose parts are several images: 1" in planned.warning

    def test_patients(self, small_net, write_scan, digits):
        pytest.importorskip("pydicom")
        X = [
            write_scan(f"{i}.dcm", image.astype(np.uint16), PatientID=f"Secret {i // 3}")
            for i, image in enumerate(digits[0][:9])
        ]
        relation = related_patients(X)
        assert relation.groups.tolist() == np.repeat([0, 1, 2], 3).tolist()
        assert related_patients([str(p) for p in X[:1]]).groups.tolist() == [0]
        assert related_patients(list(digits[0][:2])) is None

    def test_examinations_of_unnamed_patients(self, small_net, write_scan, digits):
        pytest.importorskip("pydicom")
        named = {"PatientID": "Secret"}
        X = [
            write_scan(f"{i}.dcm", image.astype(np.uint16), StudyInstanceUID=f"1.{i // 2}", **who)
            for i, (image, who) in enumerate(
                zip(digits[0][:6], [{}] * 4 + [named, {}], strict=True)
            )
        ]
        relation = related_patients(X)
        assert relation.name == "patients (PatientID, or StudyInstanceUID where there is none)"
        # The patient of the fifth file may have had other examinations.
        assert relation.groups.tolist() == [0, 0, 1, 1, 2, 3]

    @pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
    def test_rows_without_a_group(self, small_net, digits, missing):
        groups = np.array([0, 1, missing, missing], dtype=object)
        extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False)
        with pytest.raises(ValueError, match=r"groups: row 2 has no group\. Name one"):
            plan_search(extractor, digits[0][:4], cv=KFold(2), groups=groups, timed=False)


def related_patients(X):
    from sklearn_featx.model_selection._related_images import patients

    return patients([as_image_collection(X)], fetch=False)
