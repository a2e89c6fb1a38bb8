import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import DatasetFolder, FakeData, ImageFolder
from torchvision.transforms import v2

from sklearn_featx.exceptions import ImageError, InputError
from sklearn_featx.images import ReadOptions, as_image_collection


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["cats/a", "cats/b", "dogs/c"]):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (i, 0, 0)).save(path)
    return str(tmp_path)


def reds(images):
    return [int(images.load(i)[0, 0, 0]) for i in range(len(images))]


def test_the_files_of_an_image_folder_are_read(folder):
    dataset = ImageFolder(folder)
    images = as_image_collection(dataset)
    assert [images.path(i) for i in range(3)] == [path for path, _ in dataset.samples]
    assert reds(images) == [0, 1, 2]


def test_the_files_of_a_subset_are_read(folder):
    images = as_image_collection(Subset(Subset(ImageFolder(folder), [2, 1, 0]), [0, 2]))
    assert reds(images) == [2, 0]
    assert images.path(0).endswith("c.png")


@pytest.mark.parametrize("subset", [False, True])
def test_a_transform_is_respected(folder, subset):
    dataset = ImageFolder(folder, transform=v2.functional.vertical_flip)
    dataset.transform = lambda picture: picture.point(lambda level: level + 100)
    images = as_image_collection(Subset(dataset, [2, 0]) if subset else dataset)
    assert reds(images) == ([102, 100] if subset else [100, 101, 102])
    assert images.path(0) is None


def test_a_loader_and_a_reader_of_their_own_are_respected(folder):
    class Cropped(ImageFolder):
        def __getitem__(self, i):
            picture, label = super().__getitem__(i)
            return picture.crop((0, 0, 2, 2)), label

    assert as_image_collection(Cropped(folder)).load(0).shape == (2, 2, 3)
    whole = DatasetFolder(folder, loader=lambda path: np.zeros((3, 3)), extensions=("png",))
    assert as_image_collection(whole).load(0).shape == (3, 3, 1)


def test_what_only_has_the_names_of_torch_and_torchvision_is_respected(folder):
    def default_loader(path):
        return np.zeros((3, 3))

    class Subset:
        """As in many tutorials: a subset with a transform of its own."""

        def __init__(self, dataset, indices):
            self.dataset, self.indices = dataset, indices

        def __len__(self):
            return len(self.indices)

        def __getitem__(self, i):
            return self.dataset[self.indices[i]][0].crop((0, 0, 2, 2))

    loaded = ImageFolder(folder, loader=default_loader)
    assert as_image_collection(loaded).load(0).shape == (3, 3, 1)
    assert as_image_collection(Subset(ImageFolder(folder), [2, 0])).load(0).shape == (2, 2, 3)


@pytest.mark.parametrize(
    "dataset",
    [
        FakeData(4, image_size=(3, 8, 6)),
        FakeData(4, image_size=(3, 8, 6), transform=v2.PILToTensor()),
        TensorDataset(torch.zeros(4, 3, 8, 6), torch.zeros(4)),
        Subset(FakeData(9, image_size=(3, 8, 6)), [3, 2, 1, 8]),
    ],
)
def test_items_of_other_datasets(dataset):
    images = as_image_collection(dataset)
    assert len(images) == 4
    assert images.load(3).shape[2] == 3
    assert sorted(images.load(3).shape[:2]) == [6, 8]
    assert images.digest(3) == pickle.loads(pickle.dumps(images)).take([3]).digest(0)


class Faulty:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]() if callable(self.items[i]) else self.items[i]


def test_what_a_dataset_raises_is_named():
    def fail():
        raise KeyError("column")

    images = as_image_collection(Faulty([np.zeros((2, 2)), fail, None, {"image": 1}]))
    for ask in (images.load, images.digest):
        with pytest.raises(ImageError, match="row 1: the dataset raised KeyError: 'column'"):
            ask(1)
    with pytest.raises(ImageError, match="row 2: the entry is missing"):
        images.load(2)
    with pytest.raises(ImageError, match="row 3: is a mapping without an image"):
        images.load(3)


def test_random_transforms_are_refused(rng):
    images = as_image_collection(Faulty([lambda: rng.random((4, 4))]))
    images.digest(0)
    with pytest.raises(ImageError, match=r"row 0: .*random"):
        images.load(0)


def test_datasets_that_are_refused():
    with pytest.raises(InputError, match=r"0 sample\(s\)"):
        as_image_collection(Faulty([]))
    with pytest.raises(InputError, match="plain numbers are read from arrays"):
        as_image_collection(Faulty([np.zeros(3)]), ReadOptions(image_shape=(1, -1)))
