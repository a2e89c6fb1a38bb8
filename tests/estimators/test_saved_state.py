"""Saved estimators: small, complete, refused when damaged, and checked against their backbone."""

import copy
import importlib.metadata
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_featx import (
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
    exceptions,
)
from sklearn_featx.estimators import _saved_state

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def fitted(digits):
    images, labels = digits
    return FineTuneClassifier(
        unfreeze_depth=1, image_size=32, max_epochs=1, random_state=0, C=1.0
    ).fit(images[:30], labels[:30])


def by_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def by_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def by_cloudpickle(estimator):
    return cloudpickle.loads(cloudpickle.dumps(estimator))


def by_skops(estimator):
    """Save and load; no types but our own need be trusted, beside those of scikit-learn."""
    data = skops.io.dumps(estimator)
    untrusted = skops.io.get_untrusted_types(data=data)
    # Some of scikit-learn's own are unknown to skops: the scorer and the splitter of a search.
    known = ("sklearn_featx.", "sklearn.") if hasattr(estimator, "cv") else ("sklearn_featx.",)
    assert [name for name in untrusted if not name.startswith(known)] == []
    return skops.io.loads(data, trusted=untrusted)


def without_addresses(estimator):
    return re.sub(" at 0x[0-9A-F]+", "", repr(estimator))


WAYS = [by_pickle, by_joblib, by_cloudpickle, by_skops, copy.deepcopy]

SMALL = {"unfreeze_depth": 0, "image_size": 32, "C": 1.0}
ESTIMATORS = {
    "extractor": PretrainedFeatureExtractor(image_size=32, on_error="nan"),
    "extractor in a pipeline": make_pipeline(
        PretrainedFeatureExtractor(image_size=32), LogisticRegression(max_iter=1000)
    ),
    "probe": FineTuneClassifier(**SMALL, class_weight={0: 1.0, 1: 2.0, 2: 1.5}),
    "tuned": FineTuneClassifier(**SMALL | {"unfreeze_depth": 1, "max_epochs": 1}, random_state=0),
    "regressor": FineTuneRegressor(**SMALL, random_state=np.random.RandomState(0)),
    "search": GridSearchCV(FineTuneClassifier(**SMALL), {"lr": [1e-3, 1e-2]}, cv=2),
    "search of a pipeline": GridSearchCV(
        make_pipeline(PretrainedFeatureExtractor(image_size=32), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [0.1, 1]},
        cv=2,
    ),
}


def outputs(estimator, images):
    for name in ("predict_proba", "predict", "transform"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(images)
    raise AssertionError


@pytest.fixture(scope="module")
def all_fitted(digits):
    images, labels = digits
    return {
        name: copy.deepcopy(estimator).fit(images[:20], labels[:20])
        for name, estimator in ESTIMATORS.items()
    }


@pytest.mark.parametrize("save_and_load", WAYS)
@pytest.mark.parametrize("name", ESTIMATORS)
class TestRoundTrips:
    def test_not_fitted(self, save_and_load, name):
        estimator = ESTIMATORS[name]
        again = save_and_load(estimator)
        assert without_addresses(again) == without_addresses(estimator)
        assert again.get_params().keys() == estimator.get_params().keys()

    def test_fitted(self, save_and_load, name, all_fitted, digits):
        estimator = all_fitted[name]
        again = save_and_load(estimator)
        wanted = outputs(estimator, digits[0][:6])
        np.testing.assert_array_equal(outputs(again, digits[0][:6]), wanted)
        assert vars(again).keys() == vars(estimator).keys()


@pytest.mark.parametrize("save_and_load", WAYS)
def test_records_come_back_as_they_were(save_and_load, fitted):
    again = save_and_load(fitted)
    assert again.history_ == fitted.history_
    assert again.failures_ == fitted.failures_
    assert again.net_ is not fitted.net_


@pytest.mark.parametrize("save_and_load", [by_pickle, by_joblib, by_cloudpickle])
def test_own_modules_travel_whole(save_and_load, small_net, digits):
    clf = FineTuneClassifier(small_net, unfreeze_depth=1, max_epochs=1, C=1.0).fit(*digits)
    again = save_and_load(clf)
    np.testing.assert_array_equal(again.predict(digits[0]), clf.predict(digits[0]))


def test_a_failure_is_still_a_failure(small_net, digit_files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    paths = [*digit_files[0][:3], str(tmp_path / "bad.png")]
    extractor = PretrainedFeatureExtractor(image_size=32, on_error="nan")
    with pytest.warns(exceptions.ImageWarning):
        extractor.transform(paths)
    for way in WAYS:
        assert way(extractor).failures_ == extractor.failures_
        assert way(extractor).failures_[0].row == 3


class TestSizes:
    def test_a_tuned_model_is_at_most_1_1_times_what_was_trained(self, fitted):
        trained = sum(values.nbytes for values in fitted.trained_state_.values())
        for size in (len(pickle.dumps(fitted)), len(skops.io.dumps(fitted))):
            assert size < 1.1 * trained

    def test_a_probe_is_less_than_200_kb(self, all_fitted):
        head = sum(values.nbytes for values in all_fitted["probe"].trained_state_.values())
        assert len(pickle.dumps(all_fitted["probe"])) < head + 10_000 < 200_000

    def test_an_extractor_is_less_than_10_kb(self, all_fitted):
        assert len(pickle.dumps(all_fitted["extractor"])) < 10_000


@pytest.mark.slow
def test_another_process_predicts_the_same(fitted, digits, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    np.save(tmp_path / "images.npy", digits[0][:4])
    script = (
        "import joblib, numpy, sys, torch; torch.set_num_threads(1);"
        "model = joblib.load(sys.argv[1] + '/model.joblib');"
        "images = numpy.load(sys.argv[1] + '/images.npy');"
        "numpy.save(sys.argv[1] + '/out.npy', model.predict_proba(images))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), fitted.predict_proba(digits[0][:4]), atol=1e-6
    )


def test_another_backbone_under_the_same_name_is_an_error(small_net, digits):
    clf = FineTuneClassifier(small_net, unfreeze_depth=1, max_epochs=1, C=1.0).fit(*digits)
    saved = pickle.loads(pickle.dumps(clf))
    with torch.no_grad():
        saved.backbone.stem[0].weight[0] += 1
    with pytest.raises(exceptions.WeightsError, match="not the one that this estimator"):
        saved.predict(digits[0])


def test_training_goes_on_after_loading(small_net, digits):
    X, y = digits[0][:30], digits[1][:30]
    clf = FineTuneClassifier(small_net, unfreeze_depth=1, max_epochs=1, random_state=0, C=1.0)
    before, loaded = clf.fit(X, y).predict_proba(X), by_pickle(clf)
    after = clf.partial_fit(X, y).predict_proba(X)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(loaded.partial_fit(X, y).predict_proba(X), after)


class TestDamage:
    """One flipped bit of a file."""

    def flipped(self, data, n_bits):
        """Copies of a file, each with one bit flipped; which bits, a seed says."""
        generator = np.random.default_rng(0)
        for position in generator.integers(8 * len(data), size=n_bits):
            copy_ = bytearray(data)
            copy_[position // 8] ^= 1 << int(position % 8)
            yield bytes(copy_)

    def refusals(self, loads, data, estimator, images, n_bits):
        """How many of the damaged files are refused; no other gives anything else."""
        wanted = outputs(estimator, images)
        refused = 0
        for damaged in self.flipped(data, n_bits):
            try:
                outcome = outputs(loads(damaged), images)
            except Exception:
                # Whatever a reader of damaged bytes meets.
                refused += 1
            else:
                np.testing.assert_array_equal(outcome, wanted)
        return refused

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("name", ["probe", "tuned"])
    def test_of_200_pickles_200_are_refused(self, name, all_fitted, digits):
        estimator = all_fitted[name]
        data = pickle.dumps(estimator)
        assert self.refusals(pickle.loads, data, estimator, digits[0][:2], 200) == 200

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("name", ["probe", "tuned"])
    def test_of_200_joblib_files_200_are_refused(self, name, all_fitted, digits):
        estimator = all_fitted[name]
        file = io.BytesIO()
        joblib.dump(estimator, file)
        data = file.getvalue()
        loads = lambda damaged: joblib.load(io.BytesIO(damaged))  # noqa: E731
        assert self.refusals(loads, data, estimator, digits[0][:2], 200) == 200

    @pytest.mark.filterwarnings("ignore")
    def test_of_200_skops_files_none_is_wrong_and_195_are_refused(self, all_fitted, digits):
        # A zip archive has dates and the like, which nobody reads.
        estimator = all_fitted["probe"]
        data = skops.io.dumps(estimator)
        trusted = skops.io.get_untrusted_types(data=data)
        loads = lambda damaged: skops.io.loads(damaged, trusted=trusted)  # noqa: E731
        assert self.refusals(loads, data, estimator, digits[0][:2], 200) >= 195

    @pytest.mark.parametrize("name", ["lr", "classes_", "trained_state_", "_checksum"])
    def test_what_the_message_says(self, name, fitted):
        state = fitted.__getstate__()
        other = {"lr": 0.002, "classes_": fitted.classes_[::-1], "_checksum": "b2-1:0"}
        head = {**fitted.trained_state_}
        head[next(iter(head))] = next(iter(head.values())) + 1
        state[name] = {**other, "trained_state_": head}[name]
        with pytest.raises(exceptions.SavedStateError, match="saved FineTuneClassifier is damaged"):
            FineTuneClassifier.__new__(FineTuneClassifier).__setstate__(state)

    def test_tensors_of_own_modules_count(self, small_net):
        extractor = PretrainedFeatureExtractor(small_net.to(torch.bfloat16))
        data = pickle.dumps(extractor)
        assert repr(pickle.loads(data)) == repr(extractor)
        state = extractor.__getstate__()
        with torch.no_grad():
            small_net.stem[0].weight[0, 0, 0, 0] += 1
        with pytest.raises(exceptions.SavedStateError):
            PretrainedFeatureExtractor.__new__(PretrainedFeatureExtractor).__setstate__(state)


class TestVersions:
    @pytest.fixture(autouse=True)
    def _nothing_warned_of(self, monkeypatch):
        monkeypatch.setattr(_saved_state, "_warned", set())

    def saved_with(self, monkeypatch, **others):
        """A pickle of an extractor, saved with other versions of some packages."""
        with monkeypatch.context() as then:
            then.setattr(
                _saved_state, "versions", lambda: {**dict(_saved_state._versions()), **others}
            )
            return pickle.dumps(PretrainedFeatureExtractor(image_size=32))

    def test_they_are_saved(self, fitted, package_version):
        assert fitted.__getstate__()["_versions"] == {
            "sklearn_featx": package_version,
            "torch": importlib.metadata.version("torch"),
            "torchvision": importlib.metadata.version("torchvision"),
            "pillow": importlib.metadata.version("pillow"),
        }

    @pytest.mark.parametrize("package", ["sklearn_featx", "torch", "torchvision", "pillow"])
    def test_another_release_is_warned_of_once(self, package, monkeypatch):
        data = self.saved_with(monkeypatch, **{package: "0.0.9"})
        with pytest.warns(exceptions.SavedVersionWarning, match=f"with {package} 0.0.9") as record:
            pickle.loads(data)
        # A second warning would be an error.
        pickle.loads(data)
        assert len(record) == 1
        assert len(str(record[0].message)) <= 300

    def test_a_second_difference_is_another_warning(self, monkeypatch):
        with pytest.warns(exceptions.SavedVersionWarning, match="torch 2.0.0"):
            pickle.loads(self.saved_with(monkeypatch, torch="2.0.0"))
        with pytest.warns(exceptions.SavedVersionWarning, match="torch 1.9.0"):
            pickle.loads(self.saved_with(monkeypatch, torch="1.9.0"))

    @pytest.mark.parametrize("suffix", [".99", ".99+cu126"])
    def test_a_release_that_mends_faults_or_another_build_is_not(self, suffix, monkeypatch):
        release = _saved_state._release(importlib.metadata.version("torch"))
        pickle.loads(self.saved_with(monkeypatch, torch=release + suffix))

    def test_the_checksum_covers_them(self, fitted):
        state = fitted.__getstate__()
        state["_versions"] = {**state["_versions"], "torch": "2.13.9"}
        with pytest.raises(exceptions.SavedStateError):
            FineTuneClassifier.__new__(FineTuneClassifier).__setstate__(state)

    def test_they_are_no_attribute(self, fitted):
        assert "_versions" not in vars(by_pickle(fitted))


def test_what_stands_beside_an_estimator_in_a_file_is_not_covered(all_fitted):
    """What docs/guide/saving.md says of pipelines: their other steps have no checksum."""
    pipeline = copy.deepcopy(all_fitted["extractor in a pipeline"])
    pipeline[-1].coef_[0, 0] += 1
    again = by_pickle(pipeline)
    assert again[-1].coef_[0, 0] == pipeline[-1].coef_[0, 0]


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "saved_0_1_0.npz") as file:
        return dict(file)


class TestOldFiles:
    """Files in tests/fixtures, saved by version 0.1.0; whoever comes later must load them."""

    # Versions of other packages change.
    @pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.SavedVersionWarning")
    @pytest.mark.parametrize("name", ["extractor", "probe", "tuned", "regressor"])
    @pytest.mark.parametrize("ending", ["pickle", "joblib", "skops"])
    def test_they_load_and_compute_the_same(self, name, ending, expected):
        path = FIXTURES / f"{name}_0_1_0.{ending}"
        if ending == "skops":
            estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        else:
            estimator = joblib.load(path) if ending == "joblib" else pickle.loads(path.read_bytes())
        given = outputs(estimator, expected["images"])
        np.testing.assert_allclose(given, expected[name], rtol=1e-3, atol=1e-4)

    def test_parameters_of_later_versions_have_their_defaults(self):
        class Later(PretrainedFeatureExtractor):
            def __init__(self, backbone="x", *, brand_new=7):
                self.backbone = backbone
                self.brand_new = brand_new

        state = PretrainedFeatureExtractor("y").__getstate__()
        later = Later.__new__(Later)
        later.__setstate__(state)
        assert (later.backbone, later.brand_new) == ("y", 7)
