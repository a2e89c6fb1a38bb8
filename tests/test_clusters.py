"""The recipes of docs/guide/distributed.md on Ray and Spark, with two worker processes."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklearn_featx import FeatureStore, PretrainedFeatureExtractor

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "distributed.md").read_text("utf-8")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Both engines warn about versions of their own packages.
    pytest.mark.filterwarnings("default"),
]


def recipe(name, column, folder):
    """Run the definition on the page, with a store, for a column of paths or of bytes."""
    found = re.search(rf"^(?:class|def) {name}\b.*?(?=^\S|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    code = found[0].replace("image_size=32", f"image_size=32, cache={str(folder)!r}")
    # What `__main__` defines is sent to the workers as code.
    names = {"__name__": "__main__", "pd": pd}
    names["PretrainedFeatureExtractor"] = PretrainedFeatureExtractor
    code, n_replaced = re.subn(r'transform\((\w+)\["path"\]\)', rf'transform(\1["{column}"])', code)
    assert n_replaced == 1
    exec(code, names)
    return names[name]


def check(found, paths, store):
    expected = PretrainedFeatureExtractor(image_size=32, cache=False).transform(paths)
    assert sorted(found) == sorted(paths)
    np.testing.assert_array_equal(np.float32([found[path] for path in paths]), expected)
    assert FeatureStore(store).info().n_rows == len(paths)


@pytest.fixture(scope="module")
def files(digit_files):
    return digit_files[0][:24]


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs `pip install ray[data]`")
    pytest.importorskip("ray.data", reason="needs `pip install ray[data]`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
        yield ray
        ray.shutdown()


@pytest.mark.parametrize("column", ["path", "bytes"])
def test_ray(ray, files, column, tmp_path):
    rows = [{"path": path, "bytes": Path(path).read_bytes()} for path in files]
    table = ray.data.from_items(rows, override_num_blocks=6).map_batches(
        recipe("Features", column, tmp_path),
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
        batch_size=4,
    )
    check({row["path"]: row["features"] for row in table.take_all()}, files, tmp_path)


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql", reason="needs `pip install pyspark` and Java")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
        yield session
        session.stop()


@pytest.mark.parametrize("column", ["path", "content"])
def test_spark(spark, files, column, tmp_path):
    rows = [(path, Path(path).read_bytes()) for path in files]
    photos = spark.createDataFrame(rows, "path string, content binary").repartition(2)
    table = photos.mapInPandas(
        recipe("features_of", column, tmp_path), schema="path string, features array<float>"
    )
    check({row["path"]: row["features"] for row in table.collect()}, files, tmp_path)
