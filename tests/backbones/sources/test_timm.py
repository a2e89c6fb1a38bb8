"""timm's networks: a sample at every boundary. All of them: benchmarks/cut_sweep.py."""

import socket
import ssl
import sys
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest
import torch
from packaging.version import Version

from sklearn_featx.backbones import get_backbone
from sklearn_featx.backbones.sources import _timm
from sklearn_featx.exceptions import (
    MissingDependencyError,
    UnknownBackboneError,
    UnknownLayerError,
    WeightsError,
)

timm = pytest.importorskip("timm")

# One of each way to state groups, layout and head; timm made the test_* for this.
SAMPLE = {
    "test_resnet": 64,
    "test_vit": 160,
    "test_convnext": 64,
    "test_efficientnet": 64,
    "test_byobnet": 64,
    "test_nfnet": 64,
    "test_mambaout": 64,
    "test_vit_relpos": 160,
    "poolformer_s12": 64,
    "edgenext_xx_small": 64,
    "levit_128s": 224,
}


def shape(name):
    return (2, 3, SAMPLE[name], SAMPLE[name])


@pytest.mark.parametrize("name", SAMPLE)
def test_tail_after_trunk_is_the_network(name, cut, assert_exact):
    if not timm.is_model(name):
        pytest.skip("not in this version of timm")
    backbone = cut(f"timm/{name}")
    # Older versions of timm keep tables in two of them that cannot be traced: one piece is left.
    is_recent = Version(timm.__version__) >= Version("1.0.31")
    assert len(backbone.stages) > 3 or (name in ("test_vit_relpos", "levit_128s") and not is_recent)
    assert_exact(backbone, torch.randn(shape(name)))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_blocks_are_exact_too(name, cut, assert_exact):
    backbone = cut(f"timm/{name}", "block")
    assert len(backbone.stages) >= len(cut(f"timm/{name}").stages)
    assert_exact(backbone, torch.randn(shape(name)))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_features_are_what_goes_into_the_classifier(name, cut):
    backbone = cut(f"timm/{name}")
    whole = timm.create_model(name).eval()
    whole.load_state_dict(backbone.network.module.state_dict(), strict=False)
    x = torch.randn(shape(name))
    (features,) = backbone.tapped([len(backbone.stages)])(x)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
    assert torch.equal(features, expected)


def test_stages_are_timms_own_groups(cut):
    names = [stage.name for stage in cut("timm/test_vit").stages]
    assert names == ["patch_embed", *(f"blocks.{i}" for i in range(6))]
    names = [stage.name for stage in cut("timm/test_resnet").stages]
    assert names[-4:] == ["layer1", "layer2", "layer3", "layer4"]


def test_layout_and_tokens_come_from_the_model(cut):
    vit = cut("timm/test_vit")
    assert vit.network.prefix_tokens == 1
    tokens = torch.randn(2, 1 + 100, 64)
    torch.testing.assert_close(vit.pool("avg")(tokens), tokens[:, 1:].mean(1))
    assert not cut("timm/test_resnet").network.channels_last
    assert cut("timm/test_mambaout").network.channels_last
    with pytest.raises(UnknownLayerError, match="class token"):
        cut("timm/test_resnet").pool("cls").output_shape((64, 7, 7))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_features_of_every_stage_are_predicted(name, cut):
    backbone = cut(f"timm/{name}")
    trunk = backbone.tapped(list(range(1, len(backbone.stages) + 1)))
    x = torch.randn(shape(name))
    with torch.no_grad():
        real = [tuple(a.shape[1:]) for a in trunk(x)]
    assert backbone.shapes(trunk, shape(name)[1:]) == real
    for pooling in ("avg", "gem", "flatten"):
        pool = backbone.pool(pooling)
        with torch.no_grad():
            pooled = [tuple(pool(a).shape[1:]) for a in trunk(x)]
        assert [pool.output_shape(s) for s in real] == pooled


def test_preprocessing_is_timms():
    recipe = _timm._recipe(
        {
            "input_size": (3, 224, 224),
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.1, 0.2, 0.3),
            "std": (1.0, 1.0, 1.0),
            "crop_mode": "center",
        }
    )
    assert (recipe.resize, recipe.crop, recipe.interpolation) == (248, (224, 224), "bicubic")
    assert recipe.mean == (0.1, 0.2, 0.3)


def test_squashed_and_oblong_inputs_resize_both_sides():
    data = {
        "input_size": (3, 100, 200),
        "crop_pct": 1.0,
        "interpolation": "random",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "crop_mode": "squash",
    }
    recipe = _timm._recipe(data)
    assert (recipe.resize, recipe.crop) == ((100, 200), (100, 200))
    assert recipe.interpolation == "bilinear"


def test_geometry_equals_timms_transform(cut):
    from PIL import Image

    backbone = cut("timm/test_resnet")
    data = timm.data.resolve_model_data_config(backbone.network.module)
    transform = timm.data.create_transform(**data, is_training=False)
    image = Image.radial_gradient("L").convert("RGB").resize((200, 300))
    recipe = backbone.preprocess
    scale = recipe.resize if isinstance(recipe.resize, tuple) else None
    size = scale[::-1] if scale else (recipe.resize, int(recipe.resize * 300 / 200))
    resample = getattr(Image.Resampling, recipe.interpolation.upper())
    resized = image.resize(size, resample)
    height, width = recipe.crop
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    cropped = resized.crop((left, top, left + width, top + height))
    pixels = torch.frombuffer(bytearray(cropped.tobytes()), dtype=torch.uint8)
    found = backbone.normalize()(pixels.view(1, height, width, 3))[0]
    torch.testing.assert_close(found, transform(image), rtol=1e-5, atol=1e-5)


def test_a_file_with_another_head_is_loaded(cut, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    other = timm.create_model("test_resnet", num_classes=7).eval()
    path = tmp_path / "model.safetensors"
    safetensors.save_file(other.state_dict(), path)
    backbone = cut("timm/test_resnet", weights=path)
    other.reset_classifier(0)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.network.module(x), other(x))


def test_a_file_of_another_network_lists_what_does_not_fit(cut, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"Missing: .*unexpected: "):
        cut("timm/test_resnet", weights=tmp_path / "w.pth")


def test_a_failed_download_names_the_file_and_the_hub(cut, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(_timm, "_require_hub", lambda *_: None)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", offline)
    expected = r"no route.*https://huggingface\.co/timm/.*weights='PATH'"
    with pytest.raises(WeightsError, match=expected):
        cut("timm/test_resnet.r160_in1k", weights="DEFAULT")


class TestWithoutANetwork:
    """One attempt, then the error: huggingface_hub alone retries for most of a minute."""

    @pytest.fixture
    def attempts(self, monkeypatch):
        """Addresses that were tried; downloads fail the test."""
        tried = []

        def refuse(request, timeout):
            tried.append(request.full_url)
            assert timeout <= 5
            raise URLError(socket.gaierror(-2, "Name or service not known"))

        def download(*_, **__):
            raise AssertionError("the hub's client was started")

        monkeypatch.setattr(_timm, "urlopen", refuse)
        monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
        return tried

    def test_there_is_one_attempt(self, cut, attempts):
        with pytest.raises(WeightsError, match="Name or service not known") as error:
            cut("timm/test_resnet.r160_in1k", weights="DEFAULT")
        assert len(attempts) == 1
        assert len(str(error.value)) <= 300

    def test_a_file_that_was_downloaded_before_needs_none(self, cut, attempts, monkeypatch):
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "a file")
        with pytest.raises(WeightsError, match="the hub's client was started"):
            cut("timm/test_resnet.r160_in1k", weights="DEFAULT")
        assert attempts == []

    @pytest.mark.parametrize(
        "answer",
        [
            HTTPError("https://huggingface.co", 405, "Not allowed", Message(), None),
            URLError(ssl.SSLError("certificate verify failed")),
        ],
        ids=["an error of the server", "a certificate that urllib does not know"],
    )
    def test_where_it_is_not_certain_the_client_decides(self, answer, cut, attempts, monkeypatch):
        def answered(*_, **__):
            raise answer

        monkeypatch.setattr(_timm, "urlopen", answered)
        with pytest.raises(WeightsError, match="the hub's client was started"):
            cut("timm/test_resnet.r160_in1k", weights="DEFAULT")


def test_a_model_without_weights_says_so(cut):
    without = next(
        name
        for name in timm.list_models("resnet*")
        if name not in {n.split(".")[0] for n in timm.list_pretrained("resnet*")}
    )
    with pytest.raises(WeightsError, match="timm has none of"):
        cut(f"timm/{without}", weights="DEFAULT")


def test_weights_by_name_are_part_of_the_backbones_name(cut):
    with pytest.raises(WeightsError, match=r"NAME|'timm/test_resnet\.TAG'"):
        cut("timm/test_resnet", weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("timm/resnet_50", "timm/resnet50"), ("timm/test_resnet.r160", "timm/test_resnet.r160_in1k")],
)
def test_typos_are_answered_with_the_name_meant(typo, meant):
    with pytest.raises(UnknownBackboneError, match=meant):
        get_backbone(typo)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "sklearn-featx\[timm\]"'):
        get_backbone("timm/resnet18")


def test_names_have_the_prefix():
    names = _timm.timm_names()
    assert "timm/resnet18" in names
    assert names == sorted(names)
