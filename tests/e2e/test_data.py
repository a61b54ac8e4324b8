"""The command ``mpilayer data`` as a user starts it."""

import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.support.idx import write_idx_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path):
    """Give a function that starts the command in an empty folder."""

    def run(*arguments, **variables):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "mpilayer", "data", *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "no_proxy": "127.0.0.1",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def digits(tmp_path):
    """Give the name of a folder of tiny IDX files."""
    return write_idx_folder(tmp_path / "digits", ending=".gz").name


def assert_refused(result, *words):
    """Demand one message, no traceback, and exit code 2."""
    assert result.returncode == 2
    assert result.stderr.startswith("mpilayer: error: ")
    assert result.stderr.count("mpilayer: error") == 1
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_prepare_and_info(data, digits, tmp_path):
    prepared = data("prepare", digits, "-o", "out.h5", "--validation", 20)
    assert (prepared.returncode, prepared.stderr) == (0, "")
    assert "Wrote out.h5" in prepared.stdout
    assert max(map(len, prepared.stdout.splitlines())) <= 80
    assert names(tmp_path) == ["digits", "out.h5"]

    info = data("info", "out.h5", "--json", "--verify")
    found = json.loads(info.stdout)
    assert (found["name"], found["n_visible"], found["verified"]) == (
        "digits",
        16,
        True,
    )
    assert list(found["splits"]) == ["train", "validation", "test"]
    assert found["splits"]["validation"]["label_counts"] == dict.fromkeys(
        map(str, range(10)), 2
    )

    info = data("info", "out.h5", "--verify")
    assert found["digest"] in info.stdout
    assert "agrees with the digest" in info.stdout
    assert max(map(len, info.stdout.splitlines())) <= 80


def test_the_seed_chooses_the_validation_rows(data, digits):
    found = []
    for seed in (1, 1, 2):
        options = ["--validation", 10, "--seed", seed, "--replace"]
        data("prepare", digits, "-o", "out.h5", *options)
        found.append(json.loads(data("info", "out.h5", "--json").stdout)["digest"])
    assert found[0] == found[1] != found[2]


def test_an_existing_file_is_kept_unless_forced(data, digits, tmp_path):
    (tmp_path / "out.h5").write_text("precious")
    # The message comes before anything is read.
    assert_refused(
        data("prepare", "missing", "-o", "out.h5"), "out.h5 exists", "--replace"
    )
    assert (tmp_path / "out.h5").read_text() == "precious"
    assert data("prepare", digits, "-o", "out.h5", "--replace").returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--validation", "-1"], "must be at least 0; got -1. Change --validation"),
        (["--seed", "-1"], "must be at least 0; got -1. Change --seed"),
        (["--validation", "60"], "asked for 60 of 60"),
        (["--validation", "many"], "must be a whole number; got 'many'"),
        (["--vlaidation", "1"], "--vlaidation 1. Did you mean --validation?"),
        (["--valid", "1"], "--valid 1. Did you mean --validation?"),
    ],
)
def test_wrong_options(data, digits, tmp_path, options, words):
    assert_refused(data("prepare", digits, "-o", "out.h5", *options), words)
    assert names(tmp_path) == ["digits"]


@pytest.mark.parametrize(
    "output", ["none/out.h5", "file/out.h5", "digits", ".", "out.txt", "out"]
)
def test_wrong_outputs(data, digits, tmp_path, output):
    (tmp_path / "file").write_text("")
    assert_refused(data("prepare", digits, "-o", output), "-o/--output must")
    assert names(tmp_path) == ["digits", "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(data, digits, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    result = data("prepare", digits, "-o", "closed/out.h5")
    assert_refused(result, "closed/out.h5 must be writable", "permission denied")
    assert names(folder) == []


def test_wrong_sources(data, tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,four\n")
    np.save(tmp_path / "b.npy", np.array([[1, np.nan]]))
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d").mkdir()
    before = names(tmp_path)
    words = {
        "a.csv": "line 2 has 'four'",
        "b.npy": "row 0, column 1 is nan",
        "c.png": "must end in .npy",
        "d": "must hold train-images-idx3-ubyte",
        "e": "found nothing there",
    }
    for source, word in words.items():
        assert_refused(data("prepare", source, "-o", "out.h5"), source, word)
    assert names(tmp_path) == before


def test_damaged_idx_files(data, tmp_path):
    cases = {
        "magic": ("train-images-idx3-ubyte", lambda old: b"\x89PNG" + old[4:]),
        "text": ("train-images-idx3-ubyte", lambda old: b"1,2\n3,4\n" * 20),
        "kind": ("train-images-idx3-ubyte", lambda old: old[:2] + b"\x0d" + old[3:]),
        "short": ("t10k-images-idx3-ubyte", lambda old: old[:-5]),
        "empty": ("train-labels-idx1-ubyte", lambda old: b""),
        "counts": (
            "train-labels-idx1-ubyte",
            lambda old: old[:4] + (59).to_bytes(4, "big") + old[8:-1],
        ),
    }
    words = {
        "magic": "starts with the magic number",
        "text": "starts with the magic number",
        "kind": "must hold unsigned bytes",
        "short": "truncated",
        "empty": "must be an IDX file",
        "counts": "one label an image; found 60 images",
    }
    for case, (name, change) in cases.items():
        path = write_idx_folder(tmp_path / case) / name
        path.write_bytes(change(path.read_bytes()))
        before = names(tmp_path)
        result = data("prepare", case, "-o", "out.h5")
        assert_refused(result, f"{case}/{name}", words[case])
        assert names(tmp_path) == before


def test_a_truncated_gzip_file(data, digits, tmp_path):
    path = tmp_path / digits / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert_refused(data("prepare", digits, "-o", "out.h5"), "truncated or damaged")
    assert names(tmp_path) == ["digits"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(data, tmp_path, value):
    np.savez(tmp_path / "a.npz", x=np.eye(5), test_x=np.full((2, 5), value))
    result = data("prepare", "a.npz", "-o", "out.h5")
    assert_refused(result, "row 0, column 0 is", str(value))
    assert names(tmp_path) == ["a.npz"]


def test_a_source_with_validation_rows_of_its_own(data, tmp_path):
    np.savez(tmp_path / "a.npz", train_x=np.eye(9), validation_x=np.eye(9))
    result = data("prepare", "a.npz", "-o", "out.h5", "--validation", 2)
    assert_refused(result, "has 9 validation rows of its own")
    result = data("prepare", "a.npz", "-o", "out.h5", "--name", "unit vectors")
    assert "unit vectors" in result.stdout


def test_info_of_wrong_files(data, digits, tmp_path):
    (tmp_path / "text.h5").write_text("text")
    assert_refused(
        data("info", "none.h5"), "found nothing there", "mpilayer data prepare"
    )
    assert_refused(
        data("info", "text.h5"), "must be a whole HDF5 file", "is not an HDF5"
    )
    data("prepare", digits, "-o", "out.h5")
    content = bytearray((tmp_path / "out.h5").read_bytes())
    content[content.index(b"digits")] ^= 1  # in the attribute 'name'
    (tmp_path / "out.h5").write_bytes(content)
    for options in ((), ("--verify",)):  # HDF5's own checksums, or the digest
        assert_refused(data("info", "out.h5", *options), "The file is damaged")


def test_fetch_of_wrong_things(data, tmp_path):
    result = data("fetch", "mnits", "-o", "out")
    assert_refused(result, "choose from mnist, fashion-mnist", "Did you mean 'mnist'")
    result = data("fetch", "mnist", "-o", "out", "--mirror", "file:///data/")
    assert_refused(result, "begins with http:// or https://", "'file:///data/'")
    assert names(tmp_path) == []


def test_commands_are_explained(data):
    assert_refused(data(), "arguments are required: COMMAND")
    words = "unknown command 'prepair'; choose from prepare, patches, fetch, info. "
    assert_refused(data("prepair"), words, "Did you mean 'prepare'?")
    for command in ("prepare", "fetch", "info"):
        text = data(command, "--help").stdout
        assert text.startswith(f"usage: mpilayer data {command}")


def test_several_ranks_are_refused_once(data, digits, tmp_path):
    ranks = [
        data("prepare", digits, "-o", "out.h5", PMI_RANK=str(rank), PMI_SIZE="2")
        for rank in range(2)
    ]
    assert_refused(ranks[0], "one process; found 2 ranks", "without mpiexec")
    assert (ranks[1].returncode, ranks[1].stderr) == (2, "")
    assert names(tmp_path) == ["digits"]


@pytest.mark.shared
def test_fetch_and_prepare_mnist(data, tmp_path):
    folder = ROOT.parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"needs the MNIST files in {folder}")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        fetched = data("fetch", "mnist", "-o", "mnist", "--mirror", url)
        server.shutdown()
        thread.join()
    assert fetched.returncode == 0
    assert "train-images-idx3-ubyte.gz: downloading (9.7 MB)" in fetched.stderr
    assert names(tmp_path / "mnist") == names(folder)
    assert "was there already" in data("fetch", "mnist", "-o", "mnist").stdout

    command = (
        fetched.stdout.splitlines()[-1].removeprefix("Next: mpilayer data ").split()
    )
    assert data(*command, "--validation", 10_000).returncode == 0
    found = json.loads(data("info", "mnist.h5", "--json").stdout)["splits"]
    assert [facts["n_samples"] for facts in found.values()] == [50_000, 10_000, 10_000]
    assert set(found["validation"]["label_counts"].values()) == {1000}
