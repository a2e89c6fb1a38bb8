"""A wrong y is refused with its row, its value and the way out, and a right one is not."""

import numpy as np
import pandas as pd
import pytest

from sklearn_featx import FineTuneClassifier, FineTuneRegressor

LETTERS = ["a", "b", "c", "a"] * 10
GAP = [*LETTERS[:6], None, *LETTERS[7:]]


@pytest.fixture
def images(digits):
    return digits[0][:40]


def probe(cls, network, **parameters):
    return cls(network, unfreeze_depth=0, C=1.0, cache=False, **parameters)


def refused(model, X, y):
    with pytest.raises(ValueError, match="y") as error:
        model.fit(X, y)
    message = str(error.value)
    assert "..." not in message
    assert "np." not in message
    assert len(message) <= 300
    return message


@pytest.mark.parametrize(
    "y",
    [
        GAP,
        [*LETTERS[:6], float("nan"), *LETTERS[7:]],
        np.array(GAP, dtype=object),
        pd.Series(GAP, index=range(100, 140)),
        pd.Series(GAP, dtype="string"),
        pd.Series(GAP, dtype="category"),
        pd.Series([0.0, 1.0] * 3 + [np.nan] + [1.0] * 33),
        pd.Series([0, 1] * 3 + [None] + [1] * 33, dtype="Int64"),
        pd.Series(pd.to_datetime(["2020", "2021"] * 3 + [None] + ["2021"] * 33)),
    ],
)
def test_a_missing_label(y, small_net, images):
    message = refused(probe(FineTuneClassifier, small_net), images, y)
    assert message.startswith("y: row 6 is ")
    assert message.endswith("no target may be missing (None, NaN, NA or NaT). Drop these rows.")


@pytest.mark.parametrize("value", [None, np.nan, np.inf])
@pytest.mark.parametrize("n_columns", [1, 2])
def test_a_target_that_is_no_number(value, n_columns, small_net, images):
    rows = [[1.0] * n_columns for _ in images]
    rows[3][-1] = value
    y = [row[0] for row in rows] if n_columns == 1 else rows
    message = refused(probe(FineTuneRegressor, small_net), images, y)
    where = "row 3" if n_columns == 1 else "row 3, column 1,"
    assert message.startswith(f"y: {where} is {value}")
    assert message.endswith("Drop these rows.")


def test_labels_that_are_continuous(small_net, images):
    for y in (np.arange(40) / 2, np.arange(80).reshape(40, 2) / 4):
        message = refused(probe(FineTuneClassifier, small_net), images, y)
        assert message.startswith("y: Unknown label type: continuous")
        assert "FineTuneRegressor" in message


@pytest.mark.parametrize(
    "y",
    [
        [["cat"], ["cat", "dog"]] * 20,
        [["cat", "dog"], ["dog", "cow"]] * 20,
        [{"cat"}, {"cat", "dog"}] * 20,
        pd.Series([["cat"], ["cat", "dog"]] * 20),
        [[0, 2], [1, 1]] * 10 + [[3, 2], [1, 0]] * 10,
    ],
)
def test_several_labels_that_are_no_matrix(y, small_net, images):
    message = refused(probe(FineTuneClassifier, small_net), images, y)
    assert "row 0 is" in message
    assert "matrix of 0 and 1 of shape (n_rows, n_labels), as MultiLabelBinarizer()" in message


def test_objects_that_are_no_text(small_net, images):
    model = probe(FineTuneClassifier, small_net)
    message = refused(model, images, np.array([0, 1] * 20, dtype=object))
    assert message.startswith("y: Unknown label type: unknown; row 0 is 0 in an array of objects.")
    assert "Pass y.astype(str)" in message
    message = refused(model, images, np.array([*LETTERS[:5], 7, *LETTERS[6:]], dtype=object))
    assert message == ("y: row 0 is text, 'a', and row 5 is not, 7. Pass y.astype(str).")


@pytest.mark.parametrize("weight", [-3, float("nan"), float("inf"), "2"])
@pytest.mark.parametrize("depth", [0, 1])
def test_values_that_are_no_class_weights(weight, depth, small_net, images):
    model = FineTuneClassifier(small_net, unfreeze_depth=depth, class_weight={0: 1, 1: weight})
    said = f"the weight of 1 is {weight!r}: expected a finite number, at least 0."
    with pytest.raises(ValueError, match=rf"class_weight=\{{0: 1, 1: .*\}}: {said}"):
        model.fit(images, np.array([0, 1] * 20))


@pytest.mark.parametrize("weights", [{0: 0, 1: 0}, {0: 1, 1: 0}])
def test_class_weights_that_leave_no_row(weights, small_net, images):
    model = FineTuneClassifier(small_net, unfreeze_depth=0, class_weight=weights)
    y = np.array([0, 1] * 20)
    with pytest.raises(
        ValueError, match=r"^class_weight=\{.*\} leaves no row with a positive weight"
    ):
        model.fit(images, y, sample_weight=y.astype(float))


@pytest.mark.parametrize("cast", [list, np.array, pd.Series, lambda y: np.array(y, dtype=object)])
def test_text_for_a_regression(cast, small_net, images):
    y = cast(["1.5"] * 7 + ["mild"] * 33)
    message = refused(probe(FineTuneRegressor, small_net), images, y)
    assert message == (
        "y: row 7 is 'mild', which is no number. For labels, use FineTuneClassifier."
    )


def test_rows_with_different_numbers_of_targets(small_net, images):
    message = refused(probe(FineTuneRegressor, small_net), images, [[1.0]] * 5 + [[1.0, 2.0]] * 35)
    assert message.startswith("y: row 5 has 2 targets, and row 0 has 1.")


@pytest.mark.parametrize(("label", "said"), [(0, "0"), ("a", "'a'"), (True, "True")])
def test_one_class(label, said, small_net, images):
    for y in ([label] * 40, np.array([label] * 40)):
        message = refused(probe(FineTuneClassifier, small_net), images, y)
        assert message.startswith(f"y contains only one class: {said}. ")
        assert message.endswith("add images of another class.")


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (LETTERS, ["a", "b", "c"]),
        (tuple(LETTERS), ["a", "b", "c"]),
        (np.array(LETTERS, dtype=object), ["a", "b", "c"]),
        (pd.Series(LETTERS, dtype="category"), ["a", "b", "c"]),
        (pd.Series(LETTERS, dtype="string"), ["a", "b", "c"]),
        (pd.Series([3, 1] * 20, dtype="Int64"), [1, 3]),
        (np.array([2.0, 1.0] * 20), [1.0, 2.0]),
        ([True, False] * 20, [False, True]),
        ([[0, 1], [1, 1]] * 20, [0, 1]),
    ],
)
def test_right_labels(y, classes, small_net, images):
    model = probe(FineTuneClassifier, small_net).fit(images, y)
    assert model.classes_.tolist() == classes
    assert set(np.unique(model.predict(images))) <= set(classes)


@pytest.mark.parametrize(
    "y",
    [
        list(range(40)),
        [[i, -i] for i in range(40)],
        pd.Series(range(40), dtype="Int64"),
        pd.DataFrame({"a": range(40), "b": 0.5}),
        [str(i) for i in range(40)],
    ],
)
def test_right_targets(y, small_net, images):
    model = probe(FineTuneRegressor, small_net).fit(images, y)
    assert model.target_mean_[0] == 19.5


@pytest.mark.parametrize("weights", [None, [0.0, 1.0]])
@pytest.mark.parametrize("targets", [[3.0], [[3.0, -1.0]]])
def test_a_regression_of_one_row_is_constant(weights, targets, small_net, images):
    n_rows = 1 if weights is None else 2
    model = FineTuneRegressor(small_net, unfreeze_depth=0)
    model.fit(images[:n_rows], targets * n_rows, sample_weight=weights)
    np.testing.assert_array_equal(model.predict(images), np.repeat(targets, 40, axis=0))
