"""
Confident mistakes
==================

The mistakes that a model is sure of say the most: about wrong labels, odd images, and what the
model goes by. The images are handwritten digits; each is predicted by a model that has not seen it.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_featx import HeatMapDisplay, MistakesDisplay, PretrainedFeatureExtractor

images, y = load_digits(return_X_y=True)
X, y = images[:400].reshape(-1, 8, 8) / 16, y[:400]
model = make_pipeline(
    PretrainedFeatureExtractor(layer="blocks.2", image_size=48),
    StandardScaler(),
    LogisticRegression(C=0.01, max_iter=1000),
)
probabilities = cross_val_predict(model, X, y, cv=3, method="predict_proba")
print(f"accuracy {(probabilities.argmax(1) == y).mean():.3f}")

# %%
# True class, arrow, predicted class, and how sure the model is.
display = MistakesDisplay.from_predictions(X, y, probabilities, n_mistakes=6)
plt.suptitle("The most confident mistakes")

# %%
# The confusion matrix, with the most confident image of each cell.
MistakesDisplay.from_predictions(X, y, probabilities, kind="matrix")
plt.suptitle("Confusion matrix with pictures")

# %%
# Where the score of the wrong class comes from: red raises it, blue lowers it.
rows = display.rows[:3]
HeatMapDisplay.from_estimator(model.fit(X, y), X[rows], target=probabilities[rows].argmax(1))
plt.suptitle("What speaks for the wrong class")
plt.show()
