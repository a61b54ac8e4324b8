"""The main job from end to end: pre-train, fine-tune, evaluate, encode, reconstruct."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.train.schedule import Schedule, simulate
from tests.e2e.conftest import LAYERS
from tests.support import launch
from tests.support.command import call, found, refuse, said, told
from tests.support.small import contents, digests, read_summary, records, write_pixels

RANKS = (0, 2, 4)
TUNED = (0, 4)
SPLITS = ("train", "validation", "test")
SETTINGS = "--layers 14,10,8,4 --minibatch 40 --threads 1"
LOCKSTEP = "--epochs 3,4,3,3 --extra-epochs 0,0,1,2 --lag 1"
TUNE = "--epochs 4 --optimizer adam --minibatch 32 --threads 1"
SECONDS = ("training", "transform", "waiting", "sending")
METRICS_KEYS = {"layer", "epoch", "used", *SECONDS, "train_error", "validation_error"}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Give a folder with a lockstep run of each number of ranks; some are ``tuned``.

    What was printed lies beside them.
    """
    folder = tmp_path_factory.mktemp("lockstep")
    Path(shutil.copy(tiny, folder / "tiny.h5")).chmod(0o400)
    for n in RANKS:
        line = f"pretrain tiny.h5 --run run-{n} {SETTINGS} {LOCKSTEP}"
        result = call(folder, line, ranks=n).ok()
        (folder / f"results-{n}").write_text(result.stdout)
        (folder / f"progress-{n}").write_text(result.stderr)
    for n in TUNED:
        shutil.copytree(folder / "run-2", folder / f"tuned-{n}")
        said(folder, f"finetune tuned-{n} {TUNE}", ranks=n)
    return folder


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_leaves_what_it_must(folder, ranks):
    run = folder / f"run-{ranks}"
    layers = range(1, len(LAYERS) + 1)
    assert set(contents(run)) - {"metrics", "checkpoints"} == {
        *("config.toml", "schedule.json", "summary.json", "complete"),
        "metrics/stack.jsonl",
        *(f"metrics/layer-{layer}.jsonl" for layer in layers),
        *(f"checkpoints/layer-{layer}.h5" for layer in layers),
    }
    summary = read_summary(run)
    assert summary["ranks"] == max(ranks, 1)
    assert summary["threads_per_rank"] == 1
    assert summary["schedule"] == "lockstep"
    assert summary["epochs"] == [3, 4, 4, 5]
    assert summary["finetune_seconds"] is None
    assert 0 < summary["pretrain_seconds"] < 60
    assert all(0 < summary[f"{split}_error"] < 20 for split in SPLITS)
    owners = [layer["rank"] for layer in summary["layers"]]
    assert owners == sorted(owners)
    assert set(owners) == set(range(max(ranks, 1)))
    # Only rank 0 prints.
    progress = (folder / f"progress-{ranks}").read_text()
    assert progress.count("host, 1 BLAS thread each") == 1
    assert progress.count("rank 0: layer") == 1
    assert "layer 4: 5/5" in progress
    results = (folder / f"results-{ranks}").read_text()
    assert results.count("Seconds of each layer") == 1
    tables = results.partition("Pre-training took")[0]
    assert "PCA" in tables
    assert max(map(len, tables.splitlines())) <= 80
    table = Schedule.from_json((run / "schedule.json").read_text(), "schedule")
    for layer, used in enumerate(table.used, start=1):
        lines = records(run, f"layer-{layer}")
        assert [line["epoch"] for line in lines] == list(range(1, len(used) + 1))
        assert tuple(line["used"] for line in lines) == used
        for line in lines:
            assert set(line) >= METRICS_KEYS
            assert line["layer"] == layer
            assert min(line[k] for k in SECONDS) >= 0
            assert line["train_error"] > 0
    # The same bits on any number of ranks, other bits in each layer.
    assert digests(run) == digests(folder / "run-0")
    assert len(set(digests(run))) == len(LAYERS)


def test_ranks_and_the_environment_round_alike(tmp_path):
    """Products are so large that two threads would share them."""
    write_pixels(tmp_path / "data.h5", n_columns=300, more=(10, 10))
    line = "pretrain data.h5 --layers 256,128 --epochs 1 --run"
    said(tmp_path, f"{line} alone", variables={"OMP_NUM_THREADS": "4"})
    said(tmp_path, f"{line} pair", ranks=2)
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    assert digests(alone) == digests(pair)
    launches = [
        tomllib.loads((run / "config.toml").read_text()) for run in (alone, pair)
    ]
    assert [one["launch"] for one in launches] == [{"pretrain_threads": 1}] * 2


def test_the_configuration_is_effective_and_repeats_the_run(folder, tmp_path):
    config, data = folder / "run-4" / "config.toml", folder / "tiny.h5"
    written = tomllib.loads(config.read_text())["pretrain"]
    default = as_values(PretrainConfig())
    assert list(written) == list(default)
    assert written["momentum"] == default["momentum"]
    assert written["extra_epochs"] == [0, 0, 1, 2]
    # A flag counts more than the file.
    for run, options, same in (("again", "", True), ("other", "--seed 1", False)):
        line = f"pretrain {data} --run {run} --config {config} --threads 1 {options}"
        said(tmp_path, line)
        assert (digests(tmp_path / run) == digests(folder / "run-4")) == same


@pytest.mark.parametrize("ranks", TUNED)
def test_fine_tuning_and_its_evaluation(folder, ranks):
    """As good on any number of ranks, and better than before."""
    result = found(folder, f"evaluate tuned-{ranks}", ranks=ranks)
    summary, other = (read_summary(folder / f"tuned-{n}") for n in (ranks, 0))
    assert (result["split"], result["n_samples"]) == ("test", 60)
    assert result["model"] == "finetuned"
    assert result["error"] == pytest.approx(summary["test_error"], rel=1e-6)
    assert result["pca_error"] == pytest.approx(summary["pca"]["test"], rel=1e-6)
    before = found(folder, f"evaluate run-{ranks} --split validation")
    assert (before["model"], before["n_samples"]) == ("pretrained", 70)
    assert result["error"] < before["error"]
    for split in SPLITS:
        error = pytest.approx(other[f"{split}_error"], rel=1e-4)
        assert summary[f"{split}_error"] == error


def test_fine_tuning_adds_to_the_run_and_replaces_what_it_added(folder, tmp_path):
    run, before = folder / "tuned-4", read_summary(folder / "run-2")
    new = set(contents(run)) - set(contents(folder / "run-2"))
    assert new == {"checkpoints/finetuned.h5", "metrics/finetune.jsonl"}
    summary = read_summary(run)
    assert summary["finetune_seconds"] > 0
    assert summary["finetune_ranks"] == 4
    for key in ("ranks", "layers", "pretrained", "pca", "pretrain_seconds"):
        assert summary[key] == before[key]
    written = tomllib.loads((run / "config.toml").read_text())["finetune"]
    assert list(written) == list(as_values(FinetuneConfig()))
    assert written["learning_rate"] > 0
    again = shutil.copytree(run, tmp_path / "run")
    said(tmp_path, f"finetune run {TUNE} --replace")
    expected = read_summary(folder / "tuned-0")["test_error"]
    assert read_summary(again)["test_error"] == expected
    assert [line["epoch"] for line in records(again, "finetune")] == [1, 2, 3, 4]
    cross_entropy = "--optimizer adam --loss cross-entropy --epochs 2 --replace"
    said(tmp_path, f"finetune run {cross_entropy}", ranks=2)
    assert read_summary(again)["test_error"] < before["test_error"]


def test_encode_and_reconstruct(folder, tiny, tmp_path):
    """After all of it the data are as they were."""
    run, data = folder / "tuned-4", folder / "tiny.h5"
    for command in ("encode", "reconstruct"):
        said(tmp_path, f"{command} {run} {data} -o {command}.h5")
    assert data.read_bytes() == tiny.read_bytes()
    with (
        Dataset.open(data) as data,
        Dataset.open(tmp_path / "encode.h5") as codes,
        Dataset.open(tmp_path / "reconstruct.h5") as images,
    ):
        codes.verify()
        images.verify()
        assert codes.splits == images.splits == data.splits
        assert (codes.n_visible, images.n_visible) == (LAYERS[-1], data.n_visible)
        for split in data.splits:
            np.testing.assert_array_equal(codes.labels(split), data.labels(split))
        difference = data.rows("test") - images.rows("test")
    error = float(np.mean(np.sum(difference.astype(float) ** 2, axis=1)))
    assert error == pytest.approx(read_summary(run)["test_error"], rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "end", "short"),
    [
        ("async", "first-layer", True),
        ("async", "stipulated", False),
        ("simulate --costs 1,1,1,1", "first-layer", True),
    ],
)
def test_layers_short_of_their_epochs_are_told(tiny, tmp_path, schedule, end, short):
    """The first layer ends long before the others have done theirs."""
    options = f"--schedule {schedule} --epochs 2,40,40,40 --extra-epochs 0 --end {end}"
    line = f"pretrain {tiny} --run run {SETTINGS} {options}"
    text = " ".join(told(tmp_path, line, ranks=2).split())
    epochs = read_summary(tmp_path / "run")["epochs"]
    assert epochs[0] == 2
    assert (min(epochs[1:]) < 40) == short
    words = f"layer 2 {epochs[1]} of 40, layer 3 {epochs[2]} of 40"
    assert (words in text) == ("--end stipulated waits" in text) == short
    said(tmp_path, "report run -o run.html")
    assert (words in (tmp_path / "run.html").read_text()) == short


def test_simulated_epochs(tiny, tmp_path):
    options = "--schedule simulate --cores 4 --end first-layer"
    options += " --epochs 6 --extra-epochs 0,1,2,3"
    said(tmp_path, f"pretrain {tiny} --run run {SETTINGS} {options}")
    costs = [a * b for a, b in zip((20, *LAYERS), LAYERS, strict=False)]
    expected = simulate([6] * 4, [0, 1, 2, 3], costs, 4, "first-layer")
    assert read_summary(tmp_path / "run")["epochs"] == list(expected.epochs)
    assert expected.epochs[0] == 6


@pytest.fixture
def without_mpi4py(tmp_path):
    """Give the option that hides mpi4py from a process."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['mpi4py'] = None")
    paths = f"{folder}:{launch.environment()['PYTHONPATH']}"
    return {"variables": {"PYTHONPATH": paths}}


def test_one_process_needs_no_mpi4py_but_several_do(tiny, tmp_path, without_mpi4py):
    line = f"pretrain {tiny} --run run --layers 6,4 --epochs 1"
    words = ("2 processes", "mpi4py", "mpilayer[mpi]")
    refuse(tmp_path, line, *words, ranks=2, **without_mpi4py)
    lines = (line, "finetune run --epochs 1", "evaluate run")
    for line in (*lines, f"encode run {tiny} -o codes.h5"):
        said(tmp_path, line, **without_mpi4py)
    hidden = launch.run("-c", "import mpi4py", program=(), **without_mpi4py)
    assert hidden.code == 1
