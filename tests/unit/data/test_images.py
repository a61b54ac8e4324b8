"""Reading stacks of images, and folders of whole pictures."""

import os
import sys

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from mpilayer.data.dataset import PIXEL_SCALE
from mpilayer.data.images import is_image_folder, read_image_folder, read_images
from mpilayer.data.sources import Names, read_source
from mpilayer.errors import ConfigError, DataError
from tests.support.arrays import save
from tests.support.idx import write_idx_folder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 5)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (3, 6, 5), dtype=np.uint8)
PIXELS[0, 0, :2] = 0, 255


def save_images(path, array):
    layout = np.moveaxis(array, 0, -1) if path.suffix == ".mat" else array
    return save(path, images=layout)


def save_folder(folder, arrays, ending=".png"):
    folder.mkdir(exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i}{ending}")
    return folder


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".npy", ".mat"])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (X, X),
        (PIXELS, PIXELS / 255),
        *((PIXELS.astype(kind), PIXELS) for kind in ("i2", "u2", "f8", ">f4", "?")),
    ],
)
def test_bytes_alone_become_0_to_1(tmp_path, ending, array, expected):
    images = read_images(save_images(tmp_path / f"a{ending}", array))
    expected = expected.astype(array.dtype) if array.dtype == bool else expected
    np.testing.assert_allclose(images.x, expected, rtol=1e-6)
    assert images.x.dtype == np.float32
    assert images.x.flags.c_contiguous
    assert (images.name, images.origin) == ("a", f"a{ending}")


def test_the_only_array_of_a_mat_file_has_any_name(tmp_path):
    scenes = np.moveaxis(X, 0, -1)
    for arrays in (
        {"scenes": scenes, "rate": 0.5, "by": "B. O."},
        {"IMAGES": scenes, "filter": np.eye(5)},
    ):
        found = read_images(save(tmp_path / "a.mat", **arrays))
        np.testing.assert_array_equal(found.x, X)


def test_a_single_image(tmp_path):
    Image.fromarray(X[0]).save(tmp_path / "a.tif")
    for path in (tmp_path / "a.npy", tmp_path / "a.mat", tmp_path / "a.tif"):
        if path.suffix != ".tif":
            save(path, x=X[0])
        np.testing.assert_array_equal(read_images(path).x, X[:1])


@pytest.mark.parametrize("ending", [".png", ".PGM", ".tif", ".bmp"])
def test_folder(tmp_path, ending):
    folder = save_folder(tmp_path / "scenes", PIXELS, ending)
    (folder / "README").write_text("no image")
    (folder / "._0.png").write_bytes(b"\0\5\x16\7 written by macOS")
    os.mkfifo(folder / "pipe.png")
    images = read_images(folder)
    np.testing.assert_allclose(images.x, PIXELS / 255, rtol=1e-6)
    assert (images.name, images.origin) == ("scenes", "the folder scenes")


@pytest.mark.parametrize(("ending", "atol"), [(".tif", 1e-6), (".gif", 0.003)])
def test_every_page_is_an_image(tmp_path, ending, atol):
    first, *others = (Image.fromarray(array) for array in PIXELS)
    path = tmp_path / f"a{ending}"
    first.save(path, save_all=True, append_images=others)
    x = read_images(path).x
    np.testing.assert_allclose(x, PIXELS / 255, atol=atol)


@pytest.mark.parametrize("ending", [".jpg", ".tif", ".png"])
def test_what_a_camera_has_turned_is_turned_back(tmp_path, ending):
    upright = np.zeros((16, 8), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    image = Image.fromarray(np.rot90(upright).copy())
    image.save(tmp_path / f"a{ending}", exif=exif)
    x = read_images(tmp_path / f"a{ending}").x
    np.testing.assert_allclose(x[0], upright / 255, atol=0.1)


def test_a_cameras_preview_is_no_image(tmp_path):
    photo, preview = Image.new("L", (8, 16), 200), Image.new("L", (4, 8), 200)
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert read_images(tmp_path / "a.jpg").x.shape == (1, 16, 8)


@pytest.mark.parametrize("ending", [".png", ".pgm", ".tif"])
def test_16_bits_become_0_to_1(tmp_path, ending):
    # Pillow 10 writes such a PGM file from int32 only.
    array = PIXELS[0].astype(np.int32 if ending == ".pgm" else np.uint16) * 257
    x = read_images(save_folder(tmp_path / "a", [array], ending)).x
    np.testing.assert_allclose(x[0], PIXELS[0] / 255, rtol=1e-6)


def test_colours_become_grey_and_transparency_is_ignored(tmp_path):
    red = Image.new("RGBA", (5, 6), (255, 0, 0, 99))
    (tmp_path / "a").mkdir()
    red.save(tmp_path / "a" / "0.png")
    red.convert("RGB").save(tmp_path / "a" / "1.png")
    palette = Image.new("P", (5, 6))
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "a" / "2.png", transparency=b"\x00\xff")
    x = read_images(tmp_path / "a").x
    np.testing.assert_allclose(x, np.full((3, 6, 5), 76 / 255), rtol=1e-6)


def with_pixel(value):
    array = X.astype(float)
    array[1, 2, 3] = value
    return array


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        *(
            (f"a.{e}", {"images": with_pixel(value)}, f"1.* row 2, column 3 is {found}")
            for e in ("h5", "npy")
            for value, found in ((np.nan, "nan"), (-np.inf, "-inf"), (1e300, "inf"))
        ),
        ("a.tif", {"": np.float32(with_pixel(np.nan)[1])}, "row 2, column 3 is nan"),
        *(
            (f"a.{e}", {"images": np.ones(shape)}, r"grey images .* found shape \(")
            for e in ("h5", "npy", "mat")
            for shape in ((2, 3, 4, 5), (0, 3, 3), (3, 0, 3))
        ),
        *(
            (f"a.{e}", {"images": X * 1j}, "real.*complex")
            for e in ("h5", "npy", "mat")
        ),
        ("a.npy", {"": X[0, 0]}, r"\(height, width\); found shape \(5,\)"),
        ("a.h5", {"images": X[0]}, r"height, width\); found shape \(6, 5\)"),
        ("a.h5", {"scenes": X, "train/x": X}, r"found scenes \(3, 6, 5\), train. Re"),
        ("a.h5", {"images/part": X}, "must have a dataset 'images'"),
        ("a.mat", {"a": X, "b": X}, r"found a \(3, 6, 5\), b \(3, 6, 5\)"),
        ("a.mat", {"images": scipy.sparse.csc_matrix(X[0])}, "grey .* found csc_"),
        ("a.csv", {}, r"found the ending '.csv'"),
        ("a.png", {}, r"a\.png must be a whole image file"),
        ("none", {}, "found nothing there"),
        ("b", {}, r"must hold image files.*none among 0 files"),
    ],
)
def test_files_without_images(tmp_path, name, arrays, message):
    (tmp_path / "a.csv").write_text("1,2")
    (tmp_path / "a.png").write_text("1,2")
    (tmp_path / "b").mkdir()
    if name == "a.tif":
        Image.fromarray(arrays[""]).save(tmp_path / name)
    elif arrays:
        save(tmp_path / name, **arrays)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path / name)


def test_without_pillow(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "a", PIXELS)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'mpilayer\[images\]'"):
        read_images(folder)
    assert read_images(save_images(tmp_path / "a.npy", X)).x.shape == X.shape


PICTURES = np.random.default_rng(0).integers(0, 256, (6, 3, 4), dtype=np.uint8)


def save_picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pets(tmp_path):
    """Give a folder with three cats and two dogs, and things that are none."""
    folder = tmp_path / "pets"
    for k in range(5):
        save_picture(folder / ("cat" if k < 3 else "dog") / f"{k}.png", PICTURES[k])
    (folder / "cat" / "._1.png").write_bytes(b"of a Macintosh")
    (folder / "dog" / "notes.txt").write_text("these are dogs")
    (folder / ".thumbnails").mkdir()
    (folder / "README").write_text("pets")
    return folder


def test_class_folders(pets):
    source = read_source(pets)
    train = source.splits["train"]
    expected = PICTURES[:5].reshape(5, -1) * np.float32(1 / 255)
    np.testing.assert_array_equal(train.x, expected)
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.preparation.classes == ("cat", "dog")
    assert (source.name, source.origin) == ("pets", "pictures of the folder pets")
    cats = read_source(pets / "cat").splits["train"]
    assert (cats.x.shape, cats.labels) == ((3, 12), None)


def test_folders_of_splits(pets, tmp_path):
    (tmp_path / "all").mkdir()
    pets.rename(tmp_path / "all" / "train")
    save_picture(tmp_path / "all" / "test" / "dog" / "a.png", PICTURES[5])
    splits = read_source(tmp_path / "all").splits
    assert [(name, split.labels.tolist()) for name, split in splits.items()] == [
        ("train", [0, 0, 0, 1, 1]),
        ("test", [1]),
    ]
    np.testing.assert_allclose(
        splits["test"].x[0] * 255, PICTURES[5].ravel(), rtol=1e-6
    )


def test_pages_are_pictures_of_one_class(tmp_path):
    save_picture(tmp_path / "a" / "one.png", PICTURES[0])
    pages = [Image.fromarray(p) for p in PICTURES[1:3]]
    (tmp_path / "b").mkdir()
    pages[0].save(tmp_path / "b" / "pages.tif", save_all=True, append_images=pages[1:])
    found = read_source(tmp_path).splits["train"]
    np.testing.assert_allclose(found.x * 255, PICTURES[:3].reshape(3, -1), rtol=1e-6)
    assert found.labels.tolist() == [0, 1, 1]


def test_refused_folders(pets):
    def refused(message):
        with pytest.raises(DataError, match=message):
            read_source(pets)

    with pytest.raises(ConfigError, match="folder, whose labels have their own place"):
        read_source(pets, Names("kind"))
    save_picture(pets / "dog" / "big.png", np.zeros((3, 5), np.uint8))
    refused(r"one size; found 3 x 4 .* in cat/0.png and 3 x 5 in dog/big.png. Crop")
    for name in ("bird", "fish"):
        (pets / name).mkdir()
    (pets / "fish" / "._0.png").write_bytes(b"hidden")
    refused(r"found none in bird, fish. Remove")
    save_picture(pets / "cover.png", PICTURES[0])
    refused("found both, such as the folder bird")


def test_a_folder_without_pictures_is_none(pets, tmp_path):
    assert is_image_folder(tmp_path)
    assert not is_image_folder(tmp_path, depth=1)
    (tmp_path / "none").mkdir()
    assert not is_image_folder(tmp_path / "none")
    with pytest.raises(DataError, match="or image files; found nothing"):
        read_source(tmp_path / "none")
    source = read_source(write_idx_folder(tmp_path / "none"))
    assert (source.unit.scale, list(source.splits)) == (PIXEL_SCALE, ["train", "test"])
    assert (source.name, source.origin) == ("none", "IDX files of the folder none")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_closed_folder(pets):
    (pets / "dog").chmod(0)
    with pytest.raises(DataError, match="must be a folder that can be read"):
        read_image_folder(pets)
