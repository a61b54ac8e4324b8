"""The main job from end to end: pre-train, fine-tune, evaluate, encode, reconstruct."""

import json
import shutil
import tomllib

import numpy as np
import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.train.schedule import Schedule, simulate
from tests.e2e.conftest import LAYERS, contents, digests, read_summary, records
from tests.support import launch

RANKS = (0, 2, 4)
SETTINGS = ("--layers", "14,10,8,4", "--minibatch", "40", "--threads", "1")
SUMMARY_KEYS = {
    *("pretrain_seconds", "finetune_seconds", "schedule", "epochs"),
    *("train_error", "validation_error", "test_error", "ranks", "threads_per_rank"),
}
SECONDS = ("training", "transform", "waiting", "sending")
METRICS_KEYS = {"layer", "epoch", "used", *SECONDS, "train_error", "validation_error"}


def pretrain(data, run, *options, ranks=0):
    """Pre-train the four small layers, and return the run."""
    arguments = ["pretrain", data, "--run", run, *SETTINGS, *options]
    launch.run(*arguments, ranks=ranks).ok()
    return run


def evaluate(run, *options, ranks=0):
    shown = launch.run("evaluate", run, "--json", *options, ranks=ranks).ok().stdout
    return json.loads(shown)


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Give a lockstep run for each number of ranks, and what was printed."""
    folder = tmp_path_factory.mktemp("lockstep")
    results = {}
    for ranks in RANKS:
        run = folder / f"ranks-{ranks}"
        options = ["--epochs", "3,4,3,3", "--extra-epochs", "0,0,1,2", "--lag", 1]
        arguments = ["pretrain", tiny, "--run", run, *SETTINGS, *options]
        results[ranks] = (run, launch.run(*arguments, ranks=ranks).ok())
    return results


@pytest.fixture(scope="module")
def finetuned(runs, tmp_path_factory):
    """Give the same run, fine-tuned on each number of ranks."""
    folder = tmp_path_factory.mktemp("finetuned")
    results = {}
    for ranks in RANKS:
        run = shutil.copytree(runs[2][0], folder / f"ranks-{ranks}")
        options = ["--epochs", 4, "--optimizer", "adam", "--minibatch", 32]
        launch.run("finetune", run, *options, "--threads", 1, ranks=ranks).ok()
        results[ranks] = run
    return results


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_leaves_what_it_must(runs, ranks):
    run, result = runs[ranks]
    names = set(contents(run)) - {"metrics", "checkpoints"}
    layers = range(1, len(LAYERS) + 1)
    assert names == {
        *("config.toml", "schedule.json", "summary.json", "complete"),
        "metrics/stack.jsonl",
        *(f"metrics/layer-{layer}.jsonl" for layer in layers),
        *(f"checkpoints/layer-{layer}.h5" for layer in layers),
    }
    summary = read_summary(run)
    assert set(summary) >= SUMMARY_KEYS
    assert summary["ranks"] == max(ranks, 1)
    assert summary["threads_per_rank"] == 1
    assert summary["schedule"] == "lockstep"
    assert summary["epochs"] == [3, 4, 4, 5]
    assert summary["finetune_seconds"] is None
    assert 0 < summary["pretrain_seconds"] < 60
    assert all(0 < summary[f"{s}_error"] < 20 for s in ("train", "validation", "test"))
    owners = [layer["rank"] for layer in summary["layers"]]
    assert owners == sorted(owners)
    assert set(owners) == set(range(max(ranks, 1)))
    # Only rank 0 prints.
    assert result.stderr.count("host, 1 BLAS thread each") == 1
    assert result.stderr.count("rank 0: layer") == 1
    assert "layer 4: 5/5" in result.stderr
    assert result.stdout.count("Seconds of each layer") == 1
    assert "PCA" in result.stdout
    tables = result.stdout.partition("Pre-training took")[0]
    assert max(map(len, tables.splitlines())) <= 80


@pytest.mark.parametrize("ranks", RANKS)
def test_metrics_have_a_line_a_layer_and_epoch(runs, ranks):
    run, _ = runs[ranks]
    schedule = Schedule.from_json((run / "schedule.json").read_text(), "schedule")
    for index, epochs in enumerate(read_summary(run)["epochs"]):
        lines = records(run, f"layer-{index + 1}")
        assert [line["epoch"] for line in lines] == list(range(1, epochs + 1))
        assert tuple(line["used"] for line in lines) == schedule.used[index]
        for line in lines:
            assert set(line) >= METRICS_KEYS
            assert line["layer"] == index + 1
            assert min(line[k] for k in SECONDS) >= 0
            assert line["train_error"] > 0


def test_lockstep_gives_the_same_bits_on_any_number_of_ranks(runs):
    expected = digests(runs[0][0])
    assert len(set(expected)) == len(LAYERS)
    for ranks in RANKS[1:]:
        assert digests(runs[ranks][0]) == expected


def test_the_configuration_is_effective_and_repeats_the_run(runs, tiny, tmp_path):
    run, _ = runs[4]
    written = tomllib.loads((run / "config.toml").read_text())
    default = as_values(PretrainConfig())
    assert list(written["pretrain"]) == list(default)
    assert written["pretrain"]["momentum"] == default["momentum"]
    assert written["pretrain"]["extra_epochs"] == [0, 0, 1, 2]
    options = ["--config", run / "config.toml", "--threads", 1]
    pretrain(tiny, tmp_path / "again", *options)
    assert digests(tmp_path / "again") == digests(run)
    # A flag counts more than the file.
    pretrain(tiny, tmp_path / "other", *options, "--seed", 1)
    assert digests(tmp_path / "other") != digests(run)


def test_the_data_are_only_read(tiny, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    data = shutil.copy(tiny, folder / "tiny.h5")
    data.chmod(0o400)
    before = contents(folder), data.stat().st_mtime_ns
    run = pretrain(data, tmp_path / "some" / "where" / "run", "--epochs", 1, ranks=2)
    launch.run("finetune", run, "--epochs", 1).ok()
    launch.run("encode", run, data, "-o", tmp_path / "codes.h5").ok()
    assert (contents(folder), data.stat().st_mtime_ns) == before


@pytest.mark.parametrize("ranks", RANKS)
def test_evaluate(runs, finetuned, ranks):
    result = evaluate(finetuned[ranks], ranks=ranks)
    summary = read_summary(finetuned[ranks])
    assert result["split"] == "test"
    assert result["n_samples"] == 60
    assert result["model"] == "finetuned"
    assert result["error"] == pytest.approx(summary["test_error"], rel=1e-6)
    assert result["pca_error"] == pytest.approx(summary["pca"]["test"], rel=1e-6)
    before = evaluate(runs[ranks][0], "--split", "validation")
    assert (before["model"], before["n_samples"]) == ("pretrained", 70)
    assert result["error"] < before["error"]


def test_finetuning_agrees_for_any_number_of_ranks(finetuned):
    errors = [
        [read_summary(run)[f"{s}_error"] for s in ("train", "validation", "test")]
        for run in finetuned.values()
    ]
    for found in errors[1:]:
        np.testing.assert_allclose(found, errors[0], rtol=1e-4)


def test_finetuning_adds_to_the_run(runs, finetuned):
    run = finetuned[4]
    new = set(contents(run)) - set(contents(runs[2][0]))
    assert new == {"checkpoints/finetuned.h5", "metrics/finetune.jsonl"}
    summary, before = read_summary(run), read_summary(runs[2][0])
    assert summary["finetune_seconds"] > 0
    assert summary["finetune_ranks"] == 4
    for key in ("ranks", "layers", "pretrained", "pca", "pretrain_seconds"):
        assert summary[key] == before[key]
    sections = tomllib.loads((run / "config.toml").read_text())
    assert list(sections["finetune"]) == list(as_values(FinetuneConfig()))
    assert sections["finetune"]["learning_rate"] > 0
    assert [line["epoch"] for line in records(run, "finetune")] == [1, 2, 3, 4]


def test_finetuning_again_replaces(finetuned, tmp_path):
    run = shutil.copytree(finetuned[0], tmp_path / "run")
    arguments = ["finetune", run, "--epochs", 4, "--optimizer", "adam"]
    launch.run(*arguments, "--minibatch", 32, "--threads", 1, "--replace").ok()
    assert read_summary(run)["test_error"] == read_summary(finetuned[0])["test_error"]
    assert len(records(run, "finetune")) == 4


def test_encode_and_reconstruct(finetuned, tiny, tmp_path):
    run = finetuned[2]
    launch.run("encode", run, tiny, "-o", tmp_path / "codes.h5").ok()
    launch.run("reconstruct", run, tiny, "-o", tmp_path / "images.h5").ok()
    with (
        Dataset.open(tiny) as data,
        Dataset.open(tmp_path / "codes.h5") as codes,
        Dataset.open(tmp_path / "images.h5") as images,
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
    "options",
    [
        "--schedule greedy --epochs 3,2,3,2",
        "--method autoencoder --hidden tanh --code linear --learning-rate 0.05 "
        "--epochs 3 --no-tied",
    ],
)
def test_other_ways_have_the_same_bits_over_mpi(tiny, tmp_path, options):
    serial = pretrain(tiny, tmp_path / "serial", *options.split())
    parallel = pretrain(tiny, tmp_path / "parallel", *options.split(), ranks=3)
    assert digests(parallel) == digests(serial)


@pytest.mark.parametrize("end", ["stipulated", "all", "first-layer"])
def test_a_replay_repeats_an_asynchronous_run(tiny, tmp_path, end):
    options = ["--epochs", "12,5,3,4", "--extra-epochs", "0,1,2,1"]
    how = ["--schedule", "async", "--end", end]
    first = pretrain(tiny, tmp_path / "first", *how, *options, ranks=4)
    table = json.loads((first / "schedule.json").read_text())
    assert (table["kind"], len(table["dropped"])) == ("async", 4)
    assert [len(row) for row in table["used"]] == read_summary(first)["epochs"]
    options += ["--schedule", f"replay:{first / 'schedule.json'}"]
    for ranks in (0, 2):
        again = pretrain(tiny, tmp_path / f"again-{ranks}", *options, ranks=ranks)
        assert digests(again) == digests(first)
        assert read_summary(again)["epochs"] == read_summary(first)["epochs"]
        # As recorded: the paper's eq. 6, not what a table streams by default.
        config = tomllib.loads((again / "config.toml").read_text())
        assert config["pretrain"]["activations"] == "transformed"


@pytest.mark.parametrize("schedule", ["async", "simulate"])
def test_layers_short_of_their_epochs_are_told(tiny, tmp_path, schedule):
    """The first layer ends long before the others have done theirs."""
    options = ["--schedule", schedule, "--epochs", "2,40,40,40", "--extra-epochs", "0"]
    options += ["--costs", "1,1,1,1"] if schedule == "simulate" else []
    for end, short in (("first-layer", True), ("stipulated", False)):
        run = tmp_path / end
        arguments = ["pretrain", tiny, "--run", run, *SETTINGS, *options, "--end", end]
        done = launch.run(*arguments, ranks=2).ok()
        epochs = read_summary(run)["epochs"]
        assert epochs[0] == 2
        assert (min(epochs[1:]) < 40) == short
        words = f"layer 2 {epochs[1]} of 40, layer 3 {epochs[2]} of 40"
        text = " ".join(done.stderr.split())
        assert (words in text) == ("--end stipulated waits" in text) == short
        launch.run("report", run, "-o", tmp_path / f"{end}.html").ok()
        assert (words in (tmp_path / f"{end}.html").read_text()) == short


def test_simulated_epochs(tiny, tmp_path):
    options = ["--schedule", "simulate", "--cores", 4, "--end", "first-layer"]
    options += ["--epochs", 6, "--extra-epochs", "0,1,2,3"]
    run = pretrain(tiny, tmp_path / "serial", *options)
    sizes = [20, *LAYERS]
    costs = [sizes[i] * sizes[i + 1] for i in range(4)]
    expected = simulate([6] * 4, [0, 1, 2, 3], costs, 4, "first-layer")
    assert read_summary(run)["epochs"] == list(expected.epochs)
    assert expected.epochs[0] == 6


def test_fine_tuning_by_cross_entropy(runs, tmp_path):
    run = shutil.copytree(runs[2][0], tmp_path / "run")
    before = read_summary(run)["test_error"]
    options = ["--optimizer", "adam", "--loss", "cross-entropy", "--epochs", 2]
    launch.run("finetune", run, *options, ranks=2).ok()
    assert read_summary(run)["test_error"] < before


@pytest.fixture
def without_mpi4py(tmp_path):
    """Give variables that hide mpi4py from a process."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['mpi4py'] = None")
    paths = f"{folder}:{launch.environment()['PYTHONPATH']}"
    return {"PYTHONPATH": paths}


def test_one_process_needs_no_mpi4py(tiny, tmp_path, without_mpi4py):
    run = tmp_path / "run"
    settings = ["--layers", "6,4", "--epochs", 1]
    for arguments in (
        ["pretrain", tiny, "--run", run, *settings],
        ["finetune", run, "--epochs", 1],
        ["evaluate", run],
        ["encode", run, tiny, "-o", tmp_path / "codes.h5"],
    ):
        launch.run(*arguments, variables=without_mpi4py).ok()
    hidden = launch.run("-c", "import mpi4py", program=(), variables=without_mpi4py)
    assert hidden.code == 1


def test_several_processes_need_mpi4py(tiny, tmp_path, without_mpi4py):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", "--layers", "6,4"]
    result = launch.run(*arguments, ranks=2, variables=without_mpi4py)
    launch.assert_user_error(result, "2 processes", "mpi4py", "mpilayer[mpi]")
    assert not (tmp_path / "run").exists()
