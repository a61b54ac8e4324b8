"""The command ``mpilayer data patches`` as a user starts it; the sample of images."""

import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mpilayer import hdf5
from mpilayer.data.dataset import Dataset
from mpilayer.data.images import read_images
from mpilayer.data.patches import draw, into_range, whiten
from mpilayer.errors import DataError
from tests.support import launch

SAMPLE = launch.ROOT / "data" / "natural-sample.h5"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 12, 10)).astype(np.float32)


@pytest.fixture
def patches(tmp_path):
    """Give a function that starts the command in an empty folder."""
    return partial(launch.run, "data", "patches", cwd=tmp_path)


@pytest.fixture
def scenes(tmp_path):
    """Give the name of a file of small images."""
    with h5py.File(tmp_path / "scenes.h5", "w") as file:
        file["images"] = X
    return "scenes.h5"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(path, split="train"):
    with Dataset.open(path) as dataset:
        dataset.verify()
        return dataset.rows(split)


def test_patches_of_the_sample(patches, tmp_path):
    options = ["--count", 3000, "--validation", 500, "--size", 12, "--seed", 4]
    options += ["--whiten", "--range", "0.1,0.9"]
    result = patches(SAMPLE, "-o", "out.h5", *options).ok()
    assert result.stderr == ""
    assert "Wrote out.h5" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert names(tmp_path) == ["out.h5"]

    info = launch.run("data", "info", "out.h5", "--json", cwd=tmp_path).ok()
    found = json.loads(info.stdout)
    assert (found["name"], found["n_visible"]) == ("natural-sample", 144)
    assert found["origin"] == (
        "3000 patches of 12 x 12 and 500 for validation from natural-sample.h5 "
        "(5 images of 256 x 256), seed 4, whitened, range 0.1,0.9"
    )
    expected = draw(whiten(read_images(SAMPLE).x), 12, 3000, 500, seed=4)
    into_range(*expected, 0.1, 0.9)
    for split, x in zip(("train", "validation"), expected, strict=True):
        np.testing.assert_array_equal(rows(tmp_path / "out.h5", split), x)
        facts = found["splits"][split]
        assert (facts["dtype"], facts["scale"]) == ("float32", 1)
        assert facts["label_counts"] is None


def test_patches_as_they_are(patches, scenes, tmp_path):
    options = ["--count", 45, "--size", 8, "--name", "small"]
    result = patches(scenes, "-o", "out.h5", *options).ok()
    assert "small" in result.stdout
    assert "seed 0, range raw" in " ".join(result.stdout.split())
    expected, _ = draw(X, 8, 45, 0, seed=0)
    np.testing.assert_array_equal(rows(tmp_path / "out.h5"), expected)
    with Dataset.open(tmp_path / "out.h5") as dataset:
        assert dataset.splits == ("train",)


def test_the_seed_chooses_the_patches(patches, scenes, tmp_path):
    found = []
    for seed in (1, 1, 2):
        patches(scenes, "-o", "out.h5", "--count", 20, "--seed", seed, "--replace").ok()
        with Dataset.open(tmp_path / "out.h5") as dataset:
            dataset.verify()
        found.append(rows(tmp_path / "out.h5"))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_a_folder_of_image_files(patches, tmp_path):
    (tmp_path / "scenes").mkdir()
    pixels = RNG.integers(0, 256, (2, 12, 10), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "scenes" / f"{i}.png")
    options = ["--count", 30, "--range=-1,1"]
    result = patches("scenes", "-o", "out.h5", *options).ok()
    assert "from the folder scenes" in result.stdout
    x = rows(tmp_path / "out.h5")
    assert x.min() >= -1
    assert x.max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", 46], "can give 45 patches of 8 x 8; asked for 46 and 0"),
        (["--count", 44, "--validation", 2], "asked for 44 and 2 for validation"),
        ([], "asked for 100000"),
        (
            ["--size", 11],
            "1 to 10 pixels wide, as the images are 12 x 10; asked for 11",
        ),
        (["--size", 0], "size must be at least 1; got 0. Change --size"),
        (["--count", 0], "count must be at least 1; got 0. Change --count"),
        (["--count", "many"], "must be a whole number; got 'many'"),
        (["--seed", "-1"], "must be at least 0; got -1. Change --seed"),
        (["--validation", "-1"], "must be at least 0; got -1. Change --validation"),
        (["--range", "0.9,0.1"], "LOW below HIGH; got '0.9,0.1'"),
        (["--range", "0.5,0.5"], "LOW below HIGH; got '0.5,0.5'"),
        (["--range", "0.1,0.5,0.9"], "--range must be raw, or two numbers LOW,HIGH"),
        (["--range", "0.1"], "--range must be raw, or two numbers LOW,HIGH"),
        (["--range", "low,high"], "got 'low,high'. Try 0.1,0.9"),
        (["--range", "0,nan"], "got '0,nan'"),
        (["--range", "0,inf"], "got '0,inf'"),
        (["--range", "0,1e99"], "got '0,1e99'"),
        (["--range", ""], "got ''"),
    ],
)
def test_wrong_options(patches, scenes, tmp_path, options, words):
    launch.assert_user_error(patches(scenes, "-o", "out.h5", *options), words)
    assert names(tmp_path) == [scenes]


def test_an_existing_file_is_kept_unless_forced(patches, scenes, tmp_path):
    (tmp_path / "out.h5").write_text("precious")
    # The message comes before anything is read.
    result = patches("missing", "-o", "out.h5")
    launch.assert_user_error(result, "out.h5 exists", "--replace")
    assert (tmp_path / "out.h5").read_text() == "precious"
    patches(scenes, "-o", "out.h5", "--count", 20, "--replace").ok()


def test_the_images_are_not_overwritten(patches, scenes, tmp_path):
    before = (tmp_path / scenes).read_bytes()
    result = patches(scenes, "-o", f"./{scenes}", "--count", 20, "--replace")
    launch.assert_user_error(result, "another file than SOURCE")
    assert (tmp_path / scenes).read_bytes() == before


def write_wrong_sources(folder: Path) -> None:
    """Write a source of each kind of fault."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["scenes"] = X
    with h5py.File(folder / "table.h5", "w") as file:
        file["images"] = X[0]
    np.save(folder / "four.npy", X[None])
    np.save(folder / "nan.npy", np.where(X[2, 4, 3] == X, np.nan, X))
    np.save(folder / "constant.npy", np.ones((2, 9, 9)))
    (folder / "text.h5").write_text("text")
    (folder / "table.csv").write_text("1,2")
    for name in ("none", "sizes", "damaged"):
        (folder / name).mkdir()
    (folder / "none" / "notes.txt").write_text("")
    for i, size in enumerate([(12, 10), (12, 10), (10, 12)]):
        Image.new("L", size).save(folder / "sizes" / f"{i}.png")
    Image.new("L", (12, 10)).save(folder / "damaged" / "0.png")
    (folder / "damaged" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nand so on")


def test_wrong_sources(patches, tmp_path):
    write_wrong_sources(tmp_path)
    before = names(tmp_path)
    cases = {
        "missing": "found nothing there",
        "other.h5": "must have a dataset 'images' (n_images, height, width); "
        "found scenes (3, 12, 10)",
        "table.h5": "found shape (12, 10)",
        "four.npy": "found shape (1, 3, 12, 10)",
        "nan.npy": "image 2 must hold finite float32 numbers; row 4, column 3 is nan",
        "constant.npy": "images must have contrast",
        "text.h5": "must be a whole HDF5 file",
        "table.csv": "found the ending '.csv'",
        "none": "found none among 1 files",
        "sizes": "found 10 x 12 (height x width) in 0.png and 12 x 10 in 2.png",
        "damaged": "damaged/1.png must be a whole image file",
    }
    for source, words in cases.items():
        result = patches(source, "-o", "out.h5", "--whiten", "--count", 5)
        launch.assert_user_error(result, words)
        assert names(tmp_path) == before


def test_constant_patches_have_no_range(patches, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 9, 9)))
    result = patches("a.npy", "-o", "out.h5", "--count", 5, "--range", "0,1")
    launch.assert_user_error(result, "patches must have contrast")
    assert names(tmp_path) == ["a.npy"]


def test_missing_pillow(patches, scenes, tmp_path):
    (tmp_path / "folder").mkdir()
    Image.new("L", (12, 10)).save(tmp_path / "folder" / "0.png")
    without = launch.driver("sys.modules['PIL'] = None")
    result = patches("folder", "-o", "out.h5", program=without)
    launch.assert_user_error(result, "needs Pillow", "pip install 'mpilayer[images]'")
    patches(scenes, "-o", "out.h5", "--count", 5, program=without).ok()


def test_several_ranks_are_refused(patches, scenes, tmp_path):
    variables = {"PMI_RANK": "0", "PMI_SIZE": "2"}
    result = patches(scenes, "-o", "out.h5", variables=variables)
    launch.assert_user_error(result, "one process; found 2 ranks")
    assert names(tmp_path) == [scenes]


def test_sample():
    with hdf5.open_foreign(SAMPLE) as file:
        hdf5.verify_digest(file, SAMPLE, DataError)
        assert file.attrs["licence"] == "CC0 1.0"
        readme = (SAMPLE.parent / "README.md").read_text()
        assert file.attrs["digest"] in readme
        for name in (*file["images"].attrs["files"], *file["images"].attrs["authors"]):
            assert name in readme
        assert file["images"].dtype == np.uint8
    images = read_images(SAMPLE).x
    assert images.shape == (5, 256, 256)
    # Each image has contrast, and none is dark or bright throughout.
    assert np.all(images.std((1, 2)) > 0.1)
    assert np.all(abs(images.mean((1, 2)) - 0.5) < 0.25)
    assert SAMPLE.stat().st_size < 600_000


@pytest.mark.shared
def test_patches_of_olshausen_s_images(patches, shared_images, tmp_path):
    options = ["--count", 50_000, "--validation", 1000, "--range", "0.1,0.9"]
    result = patches(shared_images, "-o", "out.h5", *options).ok()
    assert "(10 images of 512 x 512)" in result.stdout
    x = rows(tmp_path / "out.h5")
    assert x.shape == (50_000, 64)
    np.testing.assert_allclose(x.mean(), 0.5, atol=1e-3)
    # Rows are in random order: shards are alike.
    deviations = [shard.std() for shard in np.split(x, 4)]
    np.testing.assert_allclose(deviations, np.mean(deviations), rtol=0.03)
