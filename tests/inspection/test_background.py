"""The baseline of maps that are not exact: never the image itself."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_featx import PretrainedFeatureExtractor, heat_maps
from sklearn_featx.exceptions import InputError
from sklearn_featx.inspection import report_page


def fitted(head, X, y, **parameters):
    settings = {"layer": "blocks.2", "image_size": 32}
    return make_pipeline(PretrainedFeatureExtractor(**settings | parameters), head).fit(X, y)


@pytest.fixture(scope="module")
def forest(digit_files):
    return fitted(RandomForestClassifier(20, random_state=0), *digit_files)


def test_an_image_is_no_baseline_of_its_own(digit_files):
    paths, y = digit_files
    forest = fitted(RandomForestClassifier(20, random_state=0), paths, y, on_error="nan")
    wanted = r"mean of one image.* baseline=X_train .*--known"
    for X in (paths[:1], paths[:1] * 3, [paths[0], "nowhere.png"]):
        with pytest.raises(InputError, match=wanted):
            heat_maps(forest, X)
    assert heat_maps(forest, paths[:2], n_samples=64).maps.any()


def test_a_given_baseline_is_that_of_all(forest, digit_files):
    paths, _ = digit_files
    found = heat_maps(forest, paths[:1], baseline=paths, n_samples=64)
    among_all = heat_maps(forest, paths, n_samples=64)
    np.testing.assert_allclose(found.maps[0], among_all.maps[0], atol=1e-9)
    assert np.abs(found.maps).max() > 0.01


def test_a_single_image_will_do_where_the_mean_is_known_or_not_needed(digit_files):
    paths, y = digit_files
    head = RandomForestClassifier(20, random_state=0)
    known = heat_maps(fitted(head, paths, y, normalize="layer"), paths[:1], n_samples=64)
    assert np.abs(known.maps).max() > 0.01
    exact = heat_maps(fitted(LogisticRegression(), paths, y), paths[:1])
    assert exact.method == "exact"


def test_a_page_measures_against_the_known_images(forest, digit_files, monkeypatch):
    paths, _ = digit_files
    baselines = []

    def spy(*args, **options):
        baselines.append(options["baseline"])
        return heat_maps(*args, **options, n_samples=64)

    monkeypatch.setattr("sklearn_featx.inspection._report.heat_maps", spy)
    page = report_page(forest, paths[:1], paths[1:9])
    assert baselines == [paths[1:9]]
    assert "maps: shapley" in page
    with pytest.raises(InputError, match="--known FOLDER"):
        report_page(forest, paths[:1])
