"""The command ``mpilayer data``, called as ``main`` calls it, in an empty folder."""

import os

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.images import read_images
from mpilayer.data.patches import draw, into_range, whiten
from mpilayer.data.split import Split
from tests.support import launch
from tests.support.command import call, found, refuse, said
from tests.support.idx import write_idx_folder
from tests.support.toys import rows

SAMPLE = launch.ROOT / "data" / "natural-sample.h5"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 12, 10)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Give a folder with tiny IDX files in ``digits`` and a file of small images."""
    write_idx_folder(tmp_path / "digits", ending=".gz")
    with h5py.File(tmp_path / "scenes.h5", "w") as file:
        file["images"] = X
    return tmp_path


def make(folder, line):
    """Demand that a line makes ``out.h5``, in 80 columns; return what that holds."""
    result = call(folder, f"data {line} -o out.h5 --replace").ok()
    assert result.stderr == ""
    assert "Wrote out.h5" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    return found(folder, "data info out.h5 --verify")


def values(folder, split="train"):
    with Dataset.open(folder / "out.h5") as dataset:
        return dataset.rows(split)


def test_prepare_and_info(folder):
    made = make(folder, "prepare digits --validation 20")
    assert (made["name"], made["n_visible"], made["verified"]) == ("digits", 16, True)
    assert list(made["splits"]) == ["train", "validation", "test"]
    counts = made["splits"]["validation"]["label_counts"]
    assert counts == dict.fromkeys(map(str, range(10)), 2)
    text = said(folder, "data info out.h5 --verify")
    assert made["digest"] in text
    assert "agrees with the digest" in text


def test_the_seed_chooses_the_validation_rows(folder):
    line = "prepare digits --validation 10 --seed"
    first, again, other = (make(folder, f"{line} {k}")["digest"] for k in (1, 1, 2))
    assert first == again != other


WRONG = {
    "prepare digits -o out.h5": [
        ("--validation -1", "must be at least 0; got -1. Change --validation."),
        ("--seed -1", "must be at least 0; got -1. Change --seed."),
        ("--validation 60", "asked for 60 of 60"),
        ("--validation many", "--validation: must be a whole number; got 'many'"),
        ("--vlaidation 1", "--vlaidation 1. Did you mean --validation?"),
        ("--valid 1", "--valid 1. Did you mean --validation?"),
    ],
    "patches scenes.h5 -o out.h5": [
        ("--count 46", "can give 45 patches of 8 x 8; asked for 46 and 0"),
        ("--count 44 --validation 2", "asked for 44 and 2 for validation"),
        ("", "asked for 100000"),
        ("--size 11", "1 to 10 pixels wide, as the images are 12 x 10; asked for 11"),
        ("--size 0", "size must be at least 1; got 0. Change --size."),
        ("--count 0", "count must be at least 1; got 0. Change --count."),
        ("--range 0.9,0.1", "LOW below HIGH; got '0.9,0.1'"),
        ("--range 0.5,0.5", "LOW below HIGH; got '0.5,0.5'"),
        ("--range 0.1,0.5,0.9", "--range must be raw, or two numbers LOW,HIGH"),
        ("--range 0.1", "--range must be raw, or two numbers LOW,HIGH"),
        ("--range low,high", "got 'low,high'. Try 0.1,0.9"),
        ("--range 0,nan", "got '0,nan'"),
        ("--range 0,1e99", "got '0,1e99'"),
        ("--range=", "got ''"),
    ],
    "patches scenes.h5 --replace": [("-o ./scenes.h5", "another file than SOURCE")],
    "prepare digits": [
        (f"-o {output}", "-o must")
        for output in ("none/out.h5", "file/out.h5", "digits", ".", "out.txt", "out")
    ],
    # The message comes before anything is read.
    "prepare missing": [("-o scenes.h5", "scenes.h5 exists")],
    "patches missing": [("-o scenes.h5", "or give --replace.")],
    "prepare": [
        ("bad.csv -o out.h5", "line 2 has 'four' in column 2"),
        ("none -o out.h5", "none must be"),
        (". -o out.h5", "must hold train-images-idx3-ubyte"),
        ("own.npz -o out.h5 --validation 2", "has 9 validation rows of its own"),
    ],
    "info": [
        ("none.h5", "found nothing there"),
        ("file", "must be a whole HDF5 file"),
    ],
    "": [
        ("", "arguments are required: COMMAND"),
        ("prepair", "unknown command 'prepair'; choose from prepare, patches, fetch, "
                    "info. Did you mean 'prepare'?"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [(command, *case) for command, cases in WRONG.items() for case in cases],
)
def test_what_is_refused(folder, command, options, words):
    (folder / "file").write_text("")
    (folder / "bad.csv").write_text("1,2\n3,four\n")
    np.savez(folder / "own.npz", train_x=np.eye(9), validation_x=np.eye(9))
    refuse(folder, f"data {command} {options}", words)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(folder):
    (folder / "closed").mkdir(mode=0o500)
    words = ("closed/out.h5 must be writable", "permission denied")
    refuse(folder, "data prepare digits -o closed/out.h5", *words)


def test_a_damaged_data_set(folder):
    make(folder, "prepare digits")
    content = bytearray((folder / "out.h5").read_bytes())
    content[content.index(b"digits")] ^= 1  # in the attribute 'name'
    (folder / "out.h5").write_bytes(content)
    for option in ("", "--verify"):  # HDF5's own checksums, or the digest
        refuse(folder, f"data info out.h5 {option}", "The file is damaged")


@pytest.mark.parametrize(
    ("n_labels", "short", "are_listed"),
    [(50, "50: 1 to 2 rows", True), (51, "51: -1 to 49", False)],
)
def test_many_labels_are_not_listed(tmp_path, n_labels, short, are_listed):
    split = Split(rows(60), np.arange(60) % n_labels - 1)
    path = tmp_path / "many.h5"
    write_dataset(path, {"train": split}, name="", origin="", scale=1.0)
    out = said(tmp_path, "data info many.h5")
    assert f"  {short}\n" in out
    assert ("rows of each label in train" in out) == are_listed
    assert max(map(len, out.splitlines())) <= 80


def test_patches_of_the_sample(tmp_path):
    options = "--count 3000 --validation 500 --size 12 --seed 4"
    made = make(tmp_path, f"patches {SAMPLE} {options} --whiten --range 0.1,0.9")
    assert (made["name"], made["n_visible"]) == ("natural-sample", 144)
    assert made["origin"] == (
        "3000 patches of 12 x 12 and 500 for validation from natural-sample.h5 "
        "(5 images of 256 x 256), seed 4, whitened, range 0.1,0.9"
    )
    expected = draw(whiten(read_images(SAMPLE).x), 12, 3000, 500, seed=4)
    into_range(*expected, 0.1, 0.9)
    for split, x in zip(("train", "validation"), expected, strict=True):
        np.testing.assert_array_equal(values(tmp_path, split), x)
        facts = made["splits"][split]
        assert (facts["dtype"], facts["scale"]) == ("float32", 1)
        assert facts["label_counts"] is None


def test_patches_as_they_are(folder):
    made = make(folder, "patches scenes.h5 --count 45 --size 8 --name small")
    assert made["name"] == "small"
    assert made["origin"].endswith("seed 0, range raw")
    assert list(made["splits"]) == ["train"]
    np.testing.assert_array_equal(values(folder), draw(X, 8, 45, 0, seed=0)[0])


def test_several_ranks_are_refused_once(folder, monkeypatch):
    # As if this process were a rank.
    monkeypatch.setattr(launch, "environment", lambda: dict(os.environ))
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    words = ("one process; found 2 ranks", "without mpiexec")
    refuse(folder, "data prepare digits -o out.h5", *words)
    monkeypatch.setenv("PMI_RANK", "1")
    result = call(folder, "data prepare digits -o out.h5")
    assert (result.code, result.stderr) == (2, "")
