"""The command ``mpilayer data``, called as ``main`` calls it, in an empty folder."""

import json
import os

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import Dataset, write_dataset
from mpilayer.data.images import read_images
from mpilayer.data.patches import draw, into_range, whiten
from mpilayer.data.split import Split
from tests.support import launch
from tests.support.idx import write_idx_folder
from tests.support.launch import ROOT, assert_user_error
from tests.support.launch import here as call
from tests.support.toys import rows

SAMPLE = ROOT / "data" / "natural-sample.h5"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 12, 10)).astype(np.float32)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Give a function that calls the command."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(*arguments):
        result = call("data", *arguments, cwd=tmp_path)
        if not {"--json", "fetch"} & set(arguments):
            assert max(map(len, result.stdout.splitlines()), default=0) <= 80
        return result

    return run


@pytest.fixture
def made(data):
    """Give a function that demands that the command makes ``out.h5``; what it holds."""

    def run(*arguments):
        result = data(*arguments, "-o", "out.h5", "--replace").ok()
        assert result.stderr == ""
        assert "Wrote out.h5" in result.stdout
        return json.loads(data("info", "out.h5", "--json", "--verify").stdout)

    return run


@pytest.fixture
def refused(data, tmp_path):
    """Give a function that demands one message, code 2, and files as they were."""

    def run(*arguments, words):
        before = names(tmp_path)
        result = data(*arguments)
        assert_user_error(result, *([words] if isinstance(words, str) else words))
        assert result.stdout == ""
        assert names(tmp_path) == before

    return run


@pytest.fixture
def digits(tmp_path):
    """Give the name of a folder of tiny IDX files."""
    return write_idx_folder(tmp_path / "digits", ending=".gz").name


@pytest.fixture
def scenes(tmp_path):
    """Give the name of a file of small images."""
    with h5py.File(tmp_path / "scenes.h5", "w") as file:
        file["images"] = X
    return "scenes.h5"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def values(folder, split="train"):
    with Dataset.open(folder / "out.h5") as dataset:
        return dataset.rows(split)


def test_prepare_and_info(data, made, digits):
    found = made("prepare", digits, "--validation", 20)
    assert (found["name"], found["n_visible"]) == ("digits", 16)
    assert found["verified"]
    assert list(found["splits"]) == ["train", "validation", "test"]
    counts = found["splits"]["validation"]["label_counts"]
    assert counts == dict.fromkeys(map(str, range(10)), 2)
    info = data("info", "out.h5", "--verify").stdout
    assert found["digest"] in info
    assert "agrees with the digest" in info


def test_the_seed_chooses_the_validation_rows(made, digits):
    options = ("prepare", digits, "--validation", 10, "--seed")
    first, again, other = (made(*options, seed)["digest"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("command", ["prepare", "patches"])
def test_an_existing_file_is_kept_unless_forced(refused, tmp_path, command):
    (tmp_path / "out.h5").write_text("precious")
    # The message comes before anything is read.
    words = ("out.h5 exists", "--replace")
    refused(command, "missing", "-o", "out.h5", words=words)
    assert (tmp_path / "out.h5").read_text() == "precious"


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
}


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [(command, *case) for command, cases in WRONG.items() for case in cases],
)
def test_wrong_options(refused, digits, scenes, tmp_path, command, options, words):
    (tmp_path / "file").write_text("")
    refused(*command.split(), *options.split(), words=words)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(refused, digits, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    words = ("closed/out.h5 must be writable", "permission denied")
    refused("prepare", digits, "-o", "closed/out.h5", words=words)


def test_wrong_sources(refused, tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,four\n")
    (tmp_path / "d").mkdir()
    for source, words in {
        "a.csv": "line 2 has 'four'",
        "d": "must hold train-images-idx3-ubyte",
        "e": "found nothing there",
    }.items():
        refused("prepare", source, "-o", "out.h5", words=(source, words))


def test_a_source_with_validation_rows_of_its_own(data, refused, tmp_path):
    np.savez(tmp_path / "a.npz", train_x=np.eye(9), validation_x=np.eye(9))
    command = ("prepare", "a.npz", "-o", "out.h5")
    refused(*command, "--validation", 2, words="has 9 validation rows of its own")
    assert "unit vectors" in data(*command, "--name", "unit vectors").stdout


def test_info_of_wrong_files(made, refused, digits, tmp_path):
    (tmp_path / "text.h5").write_text("text")
    words = ("found nothing there", "mpilayer data prepare")
    refused("info", "none.h5", words=words)
    words = ("must be a whole HDF5 file", "is not an HDF5")
    refused("info", "text.h5", words=words)
    made("prepare", digits)
    content = bytearray((tmp_path / "out.h5").read_bytes())
    content[content.index(b"digits")] ^= 1  # in the attribute 'name'
    (tmp_path / "out.h5").write_bytes(content)
    for options in ((), ("--verify",)):  # HDF5's own checksums, or the digest
        refused("info", "out.h5", *options, words="The file is damaged")


@pytest.mark.parametrize(
    ("n_labels", "short", "are_listed"),
    [(50, "50: 1 to 2 rows", True), (51, "51: -1 to 49", False)],
)
def test_many_labels_are_not_listed(data, tmp_path, n_labels, short, are_listed):
    split = Split(rows(60), np.arange(60) % n_labels - 1)
    path = tmp_path / "many.h5"
    write_dataset(path, {"train": split}, name="", origin="", scale=1.0)
    out = data("info", path).stdout
    assert f"  {short}\n" in out
    assert ("rows of each label in train" in out) == are_listed


def test_wrong_commands(refused):
    refused(words="arguments are required: COMMAND")
    words = "unknown command 'prepair'; choose from prepare, patches, fetch, info. "
    refused("prepair", words=(words, "Did you mean 'prepare'?"))


def test_patches_of_the_sample(made, tmp_path):
    options = ["--count", 3000, "--validation", 500, "--size", 12, "--seed", 4]
    found = made("patches", SAMPLE, *options, "--whiten", "--range", "0.1,0.9")
    assert (found["name"], found["n_visible"]) == ("natural-sample", 144)
    assert found["origin"] == (
        "3000 patches of 12 x 12 and 500 for validation from natural-sample.h5 "
        "(5 images of 256 x 256), seed 4, whitened, range 0.1,0.9"
    )
    expected = draw(whiten(read_images(SAMPLE).x), 12, 3000, 500, seed=4)
    into_range(*expected, 0.1, 0.9)
    for split, x in zip(("train", "validation"), expected, strict=True):
        np.testing.assert_array_equal(values(tmp_path, split), x)
        facts = found["splits"][split]
        assert (facts["dtype"], facts["scale"]) == ("float32", 1)
        assert facts["label_counts"] is None


def test_patches_as_they_are(made, scenes, tmp_path):
    found = made("patches", scenes, "--count", 45, "--size", 8, "--name", "small")
    assert found["name"] == "small"
    assert found["origin"].endswith("seed 0, range raw")
    assert list(found["splits"]) == ["train"]
    np.testing.assert_array_equal(values(tmp_path), draw(X, 8, 45, 0, seed=0)[0])


def test_several_ranks_are_refused_once(data, refused, digits, monkeypatch):
    # As if this process were a rank.
    monkeypatch.setattr(launch, "environment", lambda: dict(os.environ))
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    words = ("one process; found 2 ranks", "without mpiexec")
    refused("prepare", digits, "-o", "out.h5", words=words)
    monkeypatch.setenv("PMI_RANK", "1")
    result = data("prepare", digits, "-o", "out.h5")
    assert (result.code, result.stderr) == (2, "")
