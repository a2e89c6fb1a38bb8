"""
An image beside columns of a table
==================================

A dataframe has a column of paths and other columns. ``ColumnTransformer`` passes the paths to the
extractor and the other columns to their own steps; the model learns from both. Does the image add
anything to the table, and the table to the image?

The images are electroluminescence pictures of solar cells [1]_; the table says whether a cell is
mono- or polycrystalline. The target is a defect.

.. [1] C. Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
   Electroluminescence Imagery", EU PVSEC 2018. CC BY-NC-SA 4.0.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_featx import PretrainedFeatureExtractor

folder = files("elpv_dataset") / "data"
cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "defect", "type"])
cells = cells[cells["defect"].isin([0, 1])].groupby("defect").sample(100, random_state=0)
cells["path"] = [str(folder / path) for path in cells["path"]]
X, y = cells[["path", "type"]], cells["defect"]
print(X["type"].value_counts())

# %%
# The pipeline. Unreadable files become rows of NaN (``on_error="nan"``), which the imputer behind
# the extractor replaces, as it would in any other column. Without ``pooling="grid3"`` the columns
# are fewer, 2,096 in place of 8,624, and the example is quicker.
images = make_pipeline(
    PretrainedFeatureExtractor(layer="all", normalize="layer", image_size=128, on_error="nan"),
    SimpleImputer(),
)
sides = {
    "type": make_column_transformer((OneHotEncoder(), ["type"])),
    "image": make_column_transformer((images, ["path"])),
    "both": make_column_transformer((images, ["path"]), (OneHotEncoder(), ["type"])),
}

# %%
# The penalty of the linear model is searched for. The features are computed once for all of it.
cv = StratifiedKFold(5, shuffle=True, random_state=0)
model = make_pipeline(sides["both"], LogisticRegression(max_iter=1000))
search = GridSearchCV(model, {"logisticregression__C": [0.001, 0.01, 0.1, 1, 10]}, cv=cv).fit(X, y)
for candidate, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"C={candidate['logisticregression__C']:<6} {score:.3f}")
linear = search.best_estimator_[-1]

# %%
# Each side alone and both, on the same folds, with the difference in each fold. With few folds, a
# gain that is zero in some folds, or changes its sign, is no evidence. The penalty was chosen for
# "both" on these folds, which favors it slightly.
scores = {
    name: cross_val_score(make_pipeline(side, linear), X, y, cv=cv) for name, side in sides.items()
}
for name, found in scores.items():
    print(f"{name:<6} {found.mean():.3f}, both minus this: {(scores['both'] - found).round(2)}")

# %%
# The permutation importance asks which column the fitted model uses: it shuffles one column of X,
# here the paths, and computes the score again. Shuffled paths are paths of known images: no feature
# is computed again. The type has a small importance although it adds nothing above. The model uses
# the column, and errs where the shuffled type is wrong. A model fitted without the type uses the
# image instead.
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
model = make_pipeline(sides["both"], linear).fit(X_train, y_train)
importance = permutation_importance(model, X_test, y_test, n_repeats=10, random_state=0)
for name, mean, std in zip(
    X.columns, importance.importances_mean, importance.importances_std, strict=True
):
    print(f"{name:<6} {mean:.3f} ± {std:.3f}")

# %%
# Are the probabilities calibrated? Out-of-fold predictions answer that, from the cached rows. Below
# the diagonal on the right and above it on the left, they are too extreme: a stronger penalty or
# ``CalibratedClassifierCV`` moderates them.
from sklearn.calibration import CalibrationDisplay  # noqa: E402

probability = cross_val_predict(model, X, y, cv=5, method="predict_proba")[:, 1]
figure, ax = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
CalibrationDisplay.from_predictions(y, probability, n_bins=5, strategy="quantile", ax=ax)
ax.set_title("Calibration of image and table")
plt.show()
