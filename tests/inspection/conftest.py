import pytest

from sklearn_featx import PretrainedFeatureExtractor


@pytest.fixture(scope="module")
def small(small_net_factory):
    """Return a function that makes extractors of one small network."""
    net = small_net_factory()
    return lambda **parameters: PretrainedFeatureExtractor(net, image_size=16, **parameters)
