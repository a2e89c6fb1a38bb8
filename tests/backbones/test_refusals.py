"""Networks that are refused in one line: complex results, layers without weights."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_featx import FineTuneClassifier, PretrainedFeatureExtractor, backbone_stages
from sklearn_featx.exceptions import BackboneError, CutWarning

X = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
Y = [0, 1, 0, 1]


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.complex64))

    def forward(self, x):
        return x * self.weight


class Spectrum(nn.Module):
    """A complex map inside; complex numbers, or their real and imaginary parts, at the end."""

    def __init__(self, ending="complex"):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(1, 2, 3)
            self.weighted = Weighted()
            self.last = nn.Conv2d(4, 2, 1)
        self.ending = ending

    def forward(self, x):
        spectrum = self.weighted(torch.fft.fft2(self.first(x)))
        if self.ending == "complex":
            return spectrum.mean((2, 3))
        return self.last(torch.cat([spectrum.real, spectrum.imag], 1)).mean((2, 3))


class Untraceable(Spectrum):
    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else x


def refused(call, *arguments, **named):
    with pytest.raises(BackboneError) as error:
        call(*arguments, **named)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) <= 300
    return message


@pytest.mark.parametrize("network", [Spectrum(), Untraceable()], ids=["traced", "untraceable"])
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
class TestComplexFeatures:
    """Their imaginary part would be lost without a word."""

    @pytest.mark.parametrize("cache", [True, False])
    @pytest.mark.parametrize("layer", [None, "all"])
    @pytest.mark.parametrize("method", ["fit", "transform"])
    def test_extractor(self, network, method, layer, cache):
        extractor = PretrainedFeatureExtractor(network, layer=layer, cache=cache)
        message = refused(getattr(extractor, method), X)
        assert "gives complex numbers (torch.complex64)" in message
        assert "torch.view_as_real(x).flatten(-2)" in message

    @pytest.mark.parametrize("depth", [0, "all"])
    def test_fine_tuner(self, network, depth):
        classifier = FineTuneClassifier(network, unfreeze_depth=depth, C=1.0, max_epochs=1)
        assert "complex numbers" in refused(classifier.fit, X, Y)


def test_the_layer_is_named():
    message = refused(PretrainedFeatureExtractor(Spectrum("real"), layer="weighted").fit, X)
    assert message.startswith("backbone 'spectrum': layer 'weighted' gives complex numbers")


def test_a_complex_map_inside_a_network_is_its_own_affair():
    network = Spectrum("real")
    with torch.no_grad():
        exact = network(torch.from_numpy(X[:, None] / np.float32(255)))
    features = PretrainedFeatureExtractor(network).fit_transform(X)
    np.testing.assert_allclose(features, exact, rtol=1e-3, atol=1e-4)
    assert len(backbone_stages(network, input_shape=(1, 8, 8))) == 3


def test_a_complex_map_at_the_split_point():
    classifier = FineTuneClassifier(
        Spectrum("real"), unfreeze_depth=2, head_layers="last", C=1.0, max_epochs=1
    )
    assert "layer 'fft_fft2' gives complex numbers" in refused(classifier.fit, X, Y)


def test_a_complex_head():
    class Rotated(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1j

    classifier = FineTuneClassifier(Spectrum("real"), unfreeze_depth=0, head=Rotated, C=1.0)
    with pytest.raises(ValueError, match=r"head must return real .* torch\.complex64"):
        classifier.fit(X, Y)


def lazy():
    return nn.Sequential(nn.LazyConv2d(2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize("network", [lazy(), lazy], ids=["module", "factory"])
def test_layers_that_get_their_weights_later(network):
    message = refused(PretrainedFeatureExtractor(network).fit, X)
    assert message.startswith("backbone: the layer '0' (LazyConv2d) has no weights")
    assert "Call the network once" in message


def test_layers_that_have_their_weights_by_now():
    network = lazy()
    with torch.no_grad():
        exact = network(torch.from_numpy(X[:, None] / np.float32(255)))
    features = PretrainedFeatureExtractor(network).fit_transform(X)
    np.testing.assert_allclose(features, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fresh")
class TestUntraceable:
    """The warning says in this package's words what cannot be followed, and where."""

    def warning(self, network):
        with pytest.warns(CutWarning) as caught:
            backbone_stages(network)
        message = str(caught[0].message)
        assert "\n" not in message
        assert len(message) <= 300
        return message

    def test_a_condition_on_the_input(self):
        line = Untraceable.forward.__code__.co_firstlineno + 1
        what = "a condition, loop or number depends on its input, line "
        assert f"({what}{line} of test_refusals.py)" in self.warning(Untraceable())

    @pytest.mark.parametrize("read", [len, lambda x: range(x.shape[0]), lambda x: float(x.sum())])
    def test_a_number_from_the_input(self, read):
        class Reading(Spectrum):
            def forward(self, x):
                read(x)
                return super().forward(x)

        what = "a condition, loop or number depends on its input, line "
        assert f"({what}" in self.warning(Reading())

    def test_another_error(self):
        class Strict(Spectrum):
            def forward(self, x):
                if not isinstance(x, torch.Tensor):
                    raise TypeError("first line " + "x" * 500 + "\nsecond")
                return super().forward(x)

        assert "(TypeError: first line xxx" in self.warning(Strict())


class Returning(nn.Module):
    """Returns a function of its features; may need values, which no trace has."""

    def __init__(self, function, by_value=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.function = function
        self.by_value = by_value

    def forward(self, x):
        if self.by_value and x.sum() < -1e9:
            return x
        return self.function(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("by_value", [False, True], ids=["traced", "untraceable"])
@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
class TestResults:
    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (lambda x: {"features": x}, "dict"),
            (lambda x: (x, x), "tuple"),
            (lambda x: [x], "list"),
            (lambda x: None, "NoneType"),
        ],
        ids=["dict", "tuple", "list", "None"],
    )
    def test_that_are_no_tensor(self, function, kind, by_value):
        extractor = PretrainedFeatureExtractor(Returning(function, by_value))
        assert f"the network returns a {kind}, and a backbone" in refused(extractor.fit, X)
        assert f"the network returns a {kind}" in refused(extractor.transform, X)

    @pytest.mark.parametrize(
        "function",
        [lambda x: x.mean(), lambda x: x.mean(0), lambda x: x[:1], lambda x: x.t()],
        ids=["mean", "mean of the batch", "first row", "transposed"],
    )
    def test_that_are_no_row_for_each_image(self, function, by_value):
        extractor = PretrainedFeatureExtractor(Returning(function, by_value), cache=False)
        assert "expected a row for each image" in refused(extractor.fit, X)
        message = refused(extractor.transform, X[[0, 1, 2, 3, 0, 1]])
        assert "expected a row for each image" in message or "failed on rows" in message
        classifier = FineTuneClassifier(Returning(function, by_value), unfreeze_depth=0, C=1.0)
        assert "expected a row for each image" in refused(classifier.fit, X, Y)


@pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.CutWarning")
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (lambda x: x.mean((1, 2, 3)), r"shape \(n_images,\).*return x\[:, None\]"),
        (lambda x: x.mean((2, 3)).detach().numpy(), "returns a ndarray.*returns one tensor"),
    ],
)
def test_no_columns(ending, message):
    class Ending(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return ending(self.layer(x))

    for estimator in (PretrainedFeatureExtractor(Ending()), FineTuneClassifier(Ending())):
        with pytest.raises(BackboneError, match=message):
            estimator.fit(X, Y)
