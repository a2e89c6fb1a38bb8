"""Normalization against its formula, for pixels alone."""

import numpy as np
import torch

from sklearn_featx.backbones._normalize import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_pixels_are_scaled_and_normalized():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    expected = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    found = Normalize(MEAN, STD)(torch.from_numpy(pixels))
    assert found.dtype is torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_ends_of_the_scale_are_0_and_1_without_mean_and_std():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1)
    torch.testing.assert_close(Normalize(None, None)(pixels).flatten(), torch.tensor([0.0, 1.0]))


def test_prepared_tensors_pass_as_they_are():
    x = torch.randn(2, 3, 4, 4)
    assert Normalize(MEAN, STD)(x) is x


def test_the_result_lies_in_memory_as_convolutions_want_it():
    pixels = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    out = Normalize(MEAN, STD)(pixels)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_it_carries_no_state_to_save():
    assert not Normalize(MEAN, STD).state_dict()
