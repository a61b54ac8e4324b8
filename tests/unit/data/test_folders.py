"""Folders of whole pictures."""

import os

import numpy as np
import pytest

from mpilayer.data.images import is_image_folder, read_image_folder
from mpilayer.data.sources import LabelColumn, read_source
from mpilayer.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 4), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    """Give a folder with three cats and two dogs, and things that are none."""
    folder = tmp_path / "pets"
    for k in range(5):
        save(folder / ("cat" if k < 3 else "dog") / f"{k}.png", PIXELS[k])
    (folder / "cat" / "._1.png").write_bytes(b"of a Macintosh")
    (folder / "dog" / "notes.txt").write_text("these are dogs")
    (folder / ".thumbnails").mkdir()
    (folder / "README").write_text("pets")
    return folder


def test_class_folders(pets):
    source = read_source(pets)
    train = source.splits["train"]
    expected = PIXELS[:5].reshape(5, -1) * np.float32(1 / 255)
    np.testing.assert_array_equal(train.x, expected)
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.preparation.classes == ("cat", "dog")
    assert (source.name, source.origin) == ("pets", "pictures of the folder pets")


def test_pictures_without_folders(pets):
    source = read_source(pets / "cat")
    assert source.splits["train"].x.shape == (3, 12)
    assert source.splits["train"].labels is None


def test_folders_of_splits(pets, tmp_path):
    (tmp_path / "all").mkdir()
    pets.rename(tmp_path / "all" / "train")
    save(tmp_path / "all" / "test" / "dog" / "a.png", PIXELS[5])
    splits = read_source(tmp_path / "all").splits
    assert [(name, split.labels.tolist()) for name, split in splits.items()] == [
        ("train", [0, 0, 0, 1, 1]),
        ("test", [1]),
    ]
    np.testing.assert_allclose(splits["test"].x[0] * 255, PIXELS[5].ravel(), rtol=1e-6)


def test_pages_are_pictures_of_one_class(tmp_path):
    save(tmp_path / "a" / "one.png", PIXELS[0])
    pages = [Image.fromarray(p) for p in PIXELS[1:3]]
    (tmp_path / "b").mkdir()
    pages[0].save(tmp_path / "b" / "pages.tif", save_all=True, append_images=pages[1:])
    found = read_source(tmp_path).splits["train"]
    np.testing.assert_allclose(found.x * 255, PIXELS[:3].reshape(3, -1), rtol=1e-6)
    assert found.labels.tolist() == [0, 1, 1]


def test_other_sizes(pets):
    save(pets / "dog" / "big.png", np.zeros((3, 5), np.uint8))
    message = r"one size; found 3 x 4 .* in cat/0.png and 3 x 5 in dog/big.png. Crop"
    with pytest.raises(DataError, match=message):
        read_source(pets)


def test_an_empty_class(pets):
    (pets / "bird").mkdir()
    (pets / "fish").mkdir()
    (pets / "fish" / "._0.png").write_bytes(b"hidden")
    with pytest.raises(DataError, match=r"found none in bird, fish. Remove"):
        read_source(pets)


def test_pictures_beside_classes(pets):
    save(pets / "cover.png", PIXELS[0])
    with pytest.raises(DataError, match="found both, such as the folder cat"):
        read_source(pets)


def test_labels_of_folders_have_no_name(pets):
    with pytest.raises(ConfigError, match="folder, whose labels have their own place"):
        read_source(pets, LabelColumn("kind"))


def test_a_folder_without_pictures_is_none(pets, tmp_path):
    assert is_image_folder(tmp_path)
    assert not is_image_folder(tmp_path, depth=1)
    (tmp_path / "none").mkdir()
    assert not is_image_folder(tmp_path / "none")
    with pytest.raises(DataError, match="or image files; found nothing"):
        read_source(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_closed_folder(pets):
    (pets / "dog").chmod(0)
    with pytest.raises(DataError, match="must be a folder that can be read"):
        read_image_folder(pets)
