"""Networks that give NaN: their rows look like those of unreadable images, and are not."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor
from sklearn_featx.exceptions import BackboneWarning, ImageWarning


class Logarithm(nn.Module):
    """Finite but for black pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (x * self.scale).log().mean((2, 3))


def diverged(small_net):
    next(m for m in small_net.modules() if isinstance(m, nn.BatchNorm2d)).running_var.fill_(np.nan)
    return small_net


def test_diverged_statistics_are_said_with_the_number_of_rows(small_net, digits):
    # pytorch/pytorch#1206: statistics of BatchNorm became NaN in a training.
    extractor = PretrainedFeatureExtractor(diverged(small_net), cache=False, on_error="nan")
    with pytest.warns(BackboneWarning, match=r"for 12 of 12 images, row 0 first\. Check") as caught:
        features = extractor.fit_transform(digits[0][:12])
    assert [warning.filename for warning in caught] == [__file__]
    assert np.isnan(features).all()
    assert extractor.failures_ == []


def test_a_probe_of_them_is_refused(small_net, digits):
    classifier = FineTuneClassifier(diverged(small_net), cache=False)
    with pytest.raises(ValueError, match="row 0 of the training rows contains NaN"):
        classifier.fit(digits[0][:12], digits[1][:12])


def test_the_image_is_named_and_unreadable_ones_are_not_counted(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for i, gray in ((0, 9), (2, 9), (3, 0)):
        Image.new("RGB", (8, 8), (gray, gray, gray)).save(paths[i])
    extractor = PretrainedFeatureExtractor(Logarithm(), cache=tmp_path / "rows", on_error="nan")
    for _ in range(2):  # Computed, then cached.
        with pytest.warns((BackboneWarning, ImageWarning)) as caught:
            features = extractor.fit_transform(paths)
        said = [str(w.message) for w in caught if w.category is BackboneWarning]
        assert len(said) == 1
        assert "for 1 of 4 images, row 3 (" in said[0]
        assert paths[3] in said[0]
        assert np.isfinite(features).all(axis=1).tolist() == [True, False, True, False]


def test_nothing_is_said_of_images_that_cannot_be_read(small_net):
    extractor = PretrainedFeatureExtractor(small_net, image_size=8, cache=False, on_error="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", BackboneWarning)
        with pytest.warns(ImageWarning):
            extractor.transform([b"no image", b"nor this"])
