"""
Patients in training and test
=============================

If training and test have images of the same patients, a model recognizes the patients. The score
is too high, and nothing in it shows that. Here 60 invented patients have three X-rays each. They
are 12-bit DICOM files, made by :download:`_dicom_set.py <../examples/_dicom_set.py>`; keep that
script in the folder of this file. A patient's images show digits of one class and share a mark: a
smooth shade, as anatomy and devices cause.

``plan_search`` finds the patients in the headers of the files, before anything is computed, and
warns. ``image_groups`` keeps them together.
"""

# %%
# The files, and a plan of an ordinary cross-validation.

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import PretrainedFeatureExtractor, image_groups, plan_search

# The gallery runs this file from another folder.
EXAMPLES = Path(__file__).parent if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str(EXAMPLES))
from _dicom_set import write_dicom_set  # noqa: E402

folder = tempfile.TemporaryDirectory()
paths, y, _ = write_dicom_set(folder.name)
extractor = PretrainedFeatureExtractor(image_size=64, cache=str(Path(folder.name) / "cache"))
model = make_pipeline(extractor, StandardScaler(), RidgeClassifier(1000))

of_images = StratifiedKFold(5, shuffle=True, random_state=0)
print(plan_search(model, paths, y, cv=of_images, timed=False))

# %%
# The groups are numbers: no identifier leaves the files. With them, no patient is in both parts,
# and the plan has no warning.

groups = image_groups(paths, by="PatientID")
of_patients = StratifiedGroupKFold(5, shuffle=True, random_state=0)
print(plan_search(model, paths, y, cv=of_patients, groups=groups, timed=False).warning)

# %%
# The scores. Each image passes the network once for both. Ten classes make a chance of 0.1: the
# digits are small and the mark of the patient covers them, so that there is little but the patient
# to learn.

too_high = cross_val_score(model, paths, y, cv=of_images)
honest = cross_val_score(model, paths, y, cv=of_patients, groups=groups)


def show(name, scores):
    print(f"{name}: {scores.mean():.3f} ({scores.min():.3f} to {scores.max():.3f})")


show("one patient on both sides of a split", too_high)
show("each patient in one fold", honest)

# %%
# Which of them is right? New patients show it: the same model, on three sets of 60 patients that no
# file above shows.

model.fit(paths, y)
new = []
for seed in (1, 2, 3):
    with tempfile.TemporaryDirectory() as new_folder:
        new_paths, new_y, _ = write_dicom_set(new_folder, random_state=seed)
        new.append(model.score(new_paths, new_y))
new = np.array(new)
show("new patients", new)

# %%
import matplotlib.pyplot as plt  # noqa: E402

figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
names = ["one patient on both\nsides of a split", "each patient\nin one fold", "new patients"]
found = [too_high, honest, new]
axes.barh(names, [scores.mean() for scores in found], color=["C3", "C0", "C2"])
for place, scores in enumerate(found):
    axes.plot(scores, np.full(len(scores), place), "k|")
axes.invert_yaxis()
axes.set(title="What new patients get", xlim=(0, 1), xlabel="accuracy (lines: folds, sets)")

# %%
# Where do the scores come from? The heat maps of a model of all layers, drawn over the files, give
# the exact share of the score for each position. Digit and shade are one picture, and the maps lie
# on both.
from sklearn_featx import HeatMapDisplay  # noqa: E402

layers = PretrainedFeatureExtractor(layer="all", normalize="layer", image_size=64)
seen = make_pipeline(layers, RidgeClassifier(1000)).fit(paths, y)
HeatMapDisplay.from_estimator(seen, paths[:4], target=y[:4], view="file")
plt.suptitle("Where the scores of four scans come from")
plt.show()

# %%
folder.cleanup()
