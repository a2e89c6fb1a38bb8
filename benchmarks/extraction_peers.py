"""The libraries that `extraction.py` compares, each in its own process.

``python extraction_peers.py WAY JOB`` builds the network of the library WAY and runs one image. For
each line on its standard input, it runs all images once and answers with the seconds. JOB is a JSON
file with backbone, weights file, preprocess, and the images.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from peak_memory import peak_mib

BATCH_SIZE = 32
TIMM_NAMES = {
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vit_b_16": "vit_base_patch16_224",
}
# Networks of the same size by their own authors; EfficientNet-Lite0 is in no other library.
HUGGING_FACE = {
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "ResNet",
    "resnet50": "ResNet",
    "vit_b_16": "ViT",
}
IMG2VEC_NAMES = {"resnet18", "resnet50"}


def picture(item):
    """Open a file, or convert an array to a picture."""
    from PIL import Image

    return Image.open(item).convert("RGB") if isinstance(item, str) else Image.fromarray(item)


def batches(items):
    return (items[i : i + BATCH_SIZE] for i in range(0, len(items), BATCH_SIZE))


def preset(job):
    """Return the preprocessing of the weights as torchvision's classes."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    recipe = job["preprocess"]
    return transforms.Compose(
        [
            transforms.Resize(recipe["resize"], InterpolationMode(recipe["interpolation"])),
            transforms.CenterCrop(recipe["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(recipe["mean"], recipe["std"]),
        ]
    )


def network(job):
    """Build a backbone without its head, from its weights file."""
    import torch
    from torch import nn

    state = torch.load(job["weights"], weights_only=True)
    if job["backbone"] == "efficientnet_lite0":
        import timm

        built = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        # The file's tensors are timm's in the same order, under other names.
        built.load_state_dict(dict(zip(built.state_dict(), state.values(), strict=True)))
        built.reset_classifier(0)
    else:
        import torchvision

        built = torchvision.models.get_model(job["backbone"], weights=None)
        built.load_state_dict(state)
        head = {"resnet18": "fc", "resnet50": "fc", "vit_b_16": "heads"}
        setattr(built, head.get(job["backbone"], "classifier"), nn.Identity())
    return built.eval()


def plain_loop(job, transform=None, model=None):
    """Loop as most tutorials do: Pillow, the preset, batches of 32, no gradients."""
    import torch

    transform, model = transform or preset(job), model or network(job)

    def run(items):
        with torch.no_grad():
            found = [
                model(torch.stack([transform(picture(item)) for item in some])).numpy()
                for some in batches(items)
            ]
        return np.concatenate(found)

    return run


def timm_loop(job):
    """Loop as timm's documentation does, with its own network and transform."""
    import timm

    model = timm.create_model(TIMM_NAMES[job["backbone"]], pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    return plain_loop(job, timm.data.create_transform(**config, is_training=False), model)


def embetter(job):
    """`TimmEncoder` of embetter, which runs one image after the other."""
    import timm
    from embetter.vision import ImageLoader, TimmEncoder

    # It has no parameter for weights; the numbers do not matter for the time.
    timm.create_model = partial(_without_weights, timm.create_model)
    encoder = TimmEncoder(TIMM_NAMES[job["backbone"]])
    encoder.model.eval()
    loader = ImageLoader(convert="RGB")

    def run(items):
        files = isinstance(items[0], str)
        return encoder.transform(loader.transform(items) if files else [*map(picture, items)])

    return run


def _without_weights(create, name, **settings):
    return create(name, **{**settings, "pretrained": False})


def img2vec(job):
    """`Img2Vec` of img2vec-pytorch on lists of 32 images."""
    import img2vec_pytorch.img_to_vec as package
    import torchvision

    name = job["backbone"]
    setattr(package, name, lambda weights: getattr(torchvision.models, name)())  # noqa: ARG005
    encoder = package.Img2Vec(model=name, layer_output_size=512 if name == "resnet18" else 2048)

    def run(items):
        return np.concatenate([encoder.get_vec([*map(picture, some)]) for some in batches(items)])

    return run


def hugging_face(job):
    """Use the pipeline "image-feature-extraction" of transformers, batches of 32."""
    import transformers

    name, family = job["backbone"], HUGGING_FACE[job["backbone"]]
    settings = {}
    if name == "resnet18":
        widths = [64, 128, 256, 512]
        settings = {"depths": [2] * 4, "hidden_sizes": widths, "layer_type": "basic"}
    config = getattr(transformers, f"{family}Config")(**settings)
    model = getattr(transformers, f"{family}Model")(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 224, "width": 224})
    pipe = transformers.pipeline(
        "image-feature-extraction", model=model, image_processor=processor, device="cpu"
    )

    def run(items):
        images = items if isinstance(items[0], str) else [*map(picture, items)]
        found = pipe(images, batch_size=BATCH_SIZE, return_tensors=True)
        return np.stack([maps.numpy().ravel()[:8] for maps in found])

    return run


def read(recipe, item):
    """Decode, resize and crop to uint8, for libraries that normalize in the network."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    resize = transforms.Resize(recipe["resize"], InterpolationMode(recipe["interpolation"]))
    return np.asarray(transforms.CenterCrop(recipe["crop"])(resize(picture(item))))[None]


def from_pixels(job):
    """Return the network with normalization in front, from uint8 (n, height, width, 3)."""
    import torch
    from torch import nn

    recipe = job["preprocess"]

    class FromPixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network(job)
            self.register_buffer("mean", 255 * torch.tensor(recipe["mean"])[:, None, None])
            self.register_buffer("std", 255 * torch.tensor(recipe["std"])[:, None, None])

        def forward(self, pixels):
            return self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)

    return FromPixels().eval()


def openvino(job, precision="f32"):
    """OpenVINO's asynchronous queue, throughput mode, with one decoding thread per core."""
    import os

    import openvino
    import torch

    height, width = job["preprocess"]["crop"]
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    try:
        converted = openvino.convert_model(
            from_pixels(job), example_input=example, input=[1, height, width, 3]
        )
    except Exception:
        # It traces by TorchScript, which torchvision's attention does not pass.
        exported = torch.export.export(from_pixels(job), (example,))
        converted = openvino.convert_model(exported)
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    queue = openvino.AsyncInferQueue(compiled)

    def run(items):
        found = [None] * len(items)

        def keep(request, position):
            found[position] = request.get_output_tensor().data.copy()

        queue.set_callback(keep)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for i, pixels in enumerate(pool.map(partial(read, job["preprocess"]), items)):
                queue.start_async({0: pixels}, i)
        queue.wait_all()
        return np.concatenate(found)

    return run


def onnxruntime(job):
    """ONNX Runtime with its defaults; one thread reads images ahead."""
    import io

    import onnxruntime as package
    import torch

    height, width = job["preprocess"]["crop"]
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    file = io.BytesIO()
    torch.onnx.export(from_pixels(job), (example,), file, dynamo=True, verbose=False)
    session = package.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(items):
        with ThreadPoolExecutor(1) as pool:
            read_ahead = pool.map(partial(read, job["preprocess"]), items)
            return np.concatenate([session.run(None, {name: pixels})[0] for pixels in read_ahead])

    return run


def featx(job, **parameters):
    """Use this package; nothing is cached."""
    from sklearn_featx import PretrainedFeatureExtractor

    weights = "DEFAULT" if job["backbone"] == "efficientnet_lite0" else job["weights"]
    return PretrainedFeatureExtractor(
        job["backbone"], weights=weights, cache=False, **parameters
    ).fit_transform


WAYS = {
    "plain torchvision loop": plain_loop,
    "timm loop": timm_loop,
    "embetter": embetter,
    "img2vec-pytorch": img2vec,
    "Hugging Face pipeline": hugging_face,
    "ONNX Runtime": onnxruntime,
    "OpenVINO f32": openvino,
    "OpenVINO bf16": partial(openvino, precision="bf16"),
    "sklearn_featx": featx,
    "sklearn_featx fast": partial(featx, preprocessing="fast"),
    "sklearn_featx bfloat16, fast": partial(featx, preprocessing="fast", precision="bfloat16"),
    "sklearn_featx bfloat16": partial(featx, precision="bfloat16"),
    "sklearn_featx bfloat16, compiled": partial(featx, precision="bfloat16", compile=True),
    "sklearn_featx, OpenVINO": partial(featx, engine="openvino"),
    "sklearn_featx bfloat16, OpenVINO": partial(featx, engine="openvino", precision="bfloat16"),
}


def load_job(path):
    job = json.loads(Path(path).read_text())
    if job["source"] == "arrays":
        job["items"] = [np.asarray(picture(item)) for item in job["items"]]
    return job


def main(way, path):
    """Answer the start, and then each line of the standard input, with a line of JSON."""
    say = partial(print, file=sys.__stdout__, flush=True)
    sys.stdout = sys.stderr
    job = load_job(path)
    start = time.perf_counter()
    run = WAYS[way](job)
    run(job["items"][:1])
    say(json.dumps({"first_row_seconds": time.perf_counter() - start}))
    for _ in sys.stdin:
        start = time.perf_counter()
        found = run(job["items"])
        seconds = time.perf_counter() - start
        features = np.asarray(found, float).reshape(len(found), -1)[:4].tolist()
        say(json.dumps({"peak_mib": peak_mib(), "features": features, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
