"""Runs that are interrupted, and go on with the real command line."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from mpilayer.store import checkpoint
from tests.e2e.conftest import contents, digests, read_summary, write_pixels
from tests.e2e.test_sparse import write_patches
from tests.support import launch

EXIT_RESUME = 75
# Every epoch, step or evaluation takes long enough for a signal to come in between.
SLOW = """
from mpilayer.train.layer import LayerState
from mpilayer.train.finetune import Descender
from mpilayer.train.sparse import ShardedCost

def slow(cls, name):
    original = getattr(cls, name)

    def slowly(self, *arguments):
        time.sleep({seconds})
        return original(self, *arguments)

    setattr(cls, name, slowly)

for cls, name in ((LayerState, "train_epoch"), (Descender, "step")):
    slow(cls, name)
slow(ShardedCost, "__call__")
"""
EPOCHS = 12
STACK = ["--layers", "14,10,8", "--minibatch", 50]
PRETRAIN = [*STACK, "--epochs", EPOCHS, "--threads", 1]
TUNE = ["--epochs", 8, "--minibatch", 50, "--threads", 1]
SPARSE = ["--hidden", 5, "--output", "linear", "--sparsity-weight", 0.5]
SPARSE += ["--sparsity-target", 0.1, "--minibatch", 50, "--kl", "exact"]
SPARSE += ["--dtype", "float64", "--evaluations", 30, "--measure-every", 0]
OFTEN = ["--checkpoint-every", 1]


def slowly(seconds=0.03):
    """Return the program with slow epochs, steps and evaluations."""
    return launch.driver(SLOW.format(seconds=seconds))


def interrupt(
    run, metrics, lines, *arguments, number=signal.SIGTERM, ranks=0, seconds=0.03
):
    """Start, send a signal when there are so many lines, and demand a good end."""
    path = run / "metrics" / f"{metrics}.jsonl"
    options = {"ranks": ranks, "program": slowly(seconds), "limit": 60}
    with launch.started(*arguments, **options) as job:
        job.wait_for(path, lines)
        job.signal(number)
        result = job.finish()
    assert_saved(result, run, number.name)
    return result


def assert_saved(result, run, reason):
    """Demand the exit code, and one line that says how to go on."""
    assert result.code == EXIT_RESUME, str(result)
    line = f"mpilayer: saved and stopped because of {reason}; go on with"
    assert result.stderr.count(line) == 1, str(result)
    assert result.stderr.count(f"'mpilayer resume {run}'") == 1
    assert "Traceback" not in result.stderr
    words = [line for line in result.stdout.splitlines() if "mpiexec" not in line]
    assert not words


def resume(run, *options, ranks=0):
    """Go on to the end."""
    return launch.run("resume", run, *options, ranks=ranks).ok()


def records(run, name):
    """Return the lines of a file of metrics, none before the first one is written."""
    path = run / "metrics" / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def assert_whole(run, expected, layers=3):
    """Demand the weights of an unbroken run, to the bit, and every epoch once."""
    assert digests(run) == digests(expected)
    for number in range(1, layers + 1):
        found, other = (records(r, f"layer-{number}") for r in (run, expected))
        assert [r["epoch"] for r in found] == list(range(1, len(other) + 1))
        for key in ("used", "train_error", "validation_error"):
            assert [r[key] for r in found] == [r[key] for r in other]
    assert_tidy(run)
    found, other = read_summary(run), read_summary(expected)
    assert found["epochs"] == other["epochs"]
    # Measured together: the sum over other ranks is rounded otherwise.
    assert found["pretrained"] == pytest.approx(other["pretrained"], rel=1e-6)


def assert_tidy(run):
    """Demand that no file is left that was only of use on the way."""
    left = [name for name in contents(run) if ".e0" in name or name.endswith(".tmp")]
    assert not left
    assert (run / "complete").read_text()


def pretrain(data, run, *options, ranks=0):
    """Pre-train without a break."""
    launch.run("pretrain", data, "--run", run, *PRETRAIN, *options, ranks=ranks).ok()
    return run


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    """Give runs of each schedule that nobody interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    schedules = ("lockstep", "greedy")
    return {
        name: pretrain(tiny, folder / name, "--schedule", name) for name in schedules
    }


@pytest.fixture(scope="module")
def half(tiny, tmp_path_factory):
    """Give a run that was interrupted on the way, for copies."""
    run = tmp_path_factory.mktemp("half") / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, *OFTEN]
    interrupt(run, "layer-3", 3, *arguments)
    return run


@pytest.fixture
def broken(half, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(half, tmp_path / "run")


# --- pre-training


@pytest.mark.parametrize(
    ("schedule", "number", "ranks", "metrics", "then"),
    [
        ("lockstep", signal.SIGTERM, 0, "layer-3", 0),
        ("lockstep", signal.SIGUSR1, 2, "layer-3", 3),
        ("lockstep", signal.SIGINT, 3, "layer-1", 0),
        ("greedy", signal.SIGINT, 0, "layer-2", 2),
        ("greedy", signal.SIGUSR1, 3, "layer-1", 3),
    ],
)
def test_a_signal(tiny, unbroken, tmp_path, schedule, number, ranks, metrics, then):
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, "--schedule", schedule]
    interrupt(run, metrics, 3, *arguments, number=number, ranks=ranks)
    assert not (run / "complete").exists()
    assert not (run / "summary.json").exists()
    done = sum(len(records(run, f"layer-{n}")) for n in (1, 2, 3))
    assert done < 3 * EPOCHS
    result = resume(run, ranks=then)
    assert "going on after epochs" in result.stderr
    assert_whole(run, unbroken[schedule])


def test_time_that_is_over_again_and_again(tiny, unbroken, tmp_path):
    """Every launch does a part; the last one ends with 0."""
    run, codes = tmp_path / "run", []
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, "--resume", "auto"]
    while not codes or codes[-1] == EXIT_RESUME:
        result = launch.run(*arguments, "--max-time", 1.5, program=slowly(0.1), ranks=2)
        codes.append(result.code)
        if result.code:
            assert_saved(result, run, "the time limit")
    assert codes[-1] == 0
    assert len(codes) > 1
    assert_whole(run, unbroken["lockstep"])


@pytest.mark.parametrize(("ranks", "extra"), [(0, 1), (2, 0), (3, 1)])
def test_an_asynchronous_run_is_recorded_with_its_interruption(
    tiny, tmp_path, ranks, extra
):
    run = tmp_path / "run"
    options = ["--schedule", "async", "--extra-epochs", f"0,{extra},{extra}"]
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, *options]
    interrupt(run, "layer-3", 3, *arguments, ranks=ranks, number=signal.SIGUSR1)
    resume(run, ranks=ranks)
    assert_tidy(run)
    table = f"replay:{run / 'schedule.json'}"
    again = pretrain(tiny, tmp_path / "again", "--schedule", table)
    assert digests(again) == digests(run)
    for number in (1, 2, 3):
        name = f"layer-{number}"
        found, replayed = records(run, name), records(again, name)
        assert [r["epoch"] for r in found] == list(range(1, len(replayed) + 1))
        for key in ("used", "train_error"):
            assert [r[key] for r in found] == [r[key] for r in replayed]


def test_a_killed_run_goes_on_from_its_last_checkpoints(tiny, unbroken, tmp_path):
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, *OFTEN]
    with launch.started(*arguments, program=slowly(), limit=60) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl", 4)
        job.signal(signal.SIGKILL)
        job.finish()
    assert 1 <= len(list((run / "checkpoints").glob("layer-1.e*.h5"))) <= 5
    resume(run, ranks=2)
    assert_whole(run, unbroken["lockstep"])


def test_the_second_sigint_ends_at_once(tiny, unbroken, tmp_path):
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, *OFTEN]
    with launch.started(*arguments, program=slowly(2), limit=60) as job:
        job.wait_for(run / "metrics" / "layer-1.jsonl")
        job.signal(signal.SIGINT)
        time.sleep(0.1)
        began = time.monotonic()
        job.signal(signal.SIGINT)
        result = job.finish()
    assert result.code == 130, str(result)
    assert time.monotonic() - began < 1.9
    assert "Traceback" not in result.stderr
    resume(run)
    assert_whole(run, unbroken["lockstep"])


# --- fine-tuning


@pytest.fixture(scope="module")
def tuned(unbroken, tmp_path_factory):
    """Give a function that fine-tunes without a break, once."""
    folder, known = tmp_path_factory.mktemp("tuned"), {}

    def get(optimizer, ranks):
        if (optimizer, ranks) not in known:
            run = folder / f"{optimizer}-{ranks}"
            shutil.copytree(unbroken["lockstep"], run)
            options = [*TUNE, "--optimizer", optimizer]
            launch.run("finetune", run, *options, ranks=ranks).ok()
            known[optimizer, ranks] = run
        return known[optimizer, ranks]

    return get


def arrays(run, name, *groups):
    """Return the arrays of a checkpoint as one vector."""
    found, _ = checkpoint.load(run / "checkpoints" / f"{name}.h5")
    chosen = [k for k in sorted(found) if k.startswith(groups)]
    return np.concatenate([found[k].ravel() for k in chosen])


@pytest.mark.parametrize(
    ("optimizer", "number", "ranks", "then"),
    [
        ("sgd", signal.SIGTERM, 0, 0),
        ("sgd", signal.SIGUSR1, 3, 3),
        ("adam", signal.SIGINT, 2, 2),
        ("adam", signal.SIGUSR1, 0, 3),
    ],
)
def test_fine_tuning(unbroken, tuned, tmp_path, optimizer, number, ranks, then):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", optimizer]
    interrupt(run, "finetune", 3, *arguments, number=number, ranks=ranks)
    assert "going on after epoch" in resume(run, ranks=then).stderr
    expected = tuned(optimizer, ranks)
    found, other = records(run, "finetune"), records(expected, "finetune")
    assert [r["epoch"] for r in found] == list(range(1, 9))
    mine = arrays(run, "finetuned", "best/", "parameters/")
    whole = arrays(expected, "finetuned", "best/", "parameters/")
    if ranks == then:
        np.testing.assert_array_equal(mine, whole)
        for key in ("train_loss", "validation_error"):
            assert [r[key] for r in found] == [r[key] for r in other]
    else:
        # Sums over other ranks are rounded otherwise, in float32.
        np.testing.assert_allclose(mine, whole, rtol=0, atol=1e-4)
    for key in ("epochs", "best_epoch", "optimizer"):
        key = f"finetune_{key}"
        assert read_summary(run)[key] == read_summary(expected)[key]
    assert (run / "complete").read_text().split() == ["pretrain", "finetune"]


def test_fine_tuning_that_goes_on_for_more_epochs(unbroken, tuned, tmp_path):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", "adam"]
    launch.run(*arguments, "--epochs", 3).ok()
    again = launch.run(*arguments, "--epochs", 3, "--resume", "auto").ok()
    assert "nothing to do" in again.stderr
    launch.run(*arguments, "--resume", "auto").ok()
    expected = arrays(tuned("adam", 0), "finetuned", "best/")
    np.testing.assert_array_equal(arrays(run, "finetuned", "best/"), expected)


def test_fine_tuning_without_time(unbroken, tmp_path):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--max-time", 1]
    result = launch.run(*arguments, ranks=2, program=slowly(0.1), limit=60)
    assert_saved(result, run, "the time limit")
    assert 0 < len(records(run, "finetune")) < 8
    resume(run, ranks=2)
    assert [r["epoch"] for r in records(run, "finetune")] == list(range(1, 9))


# --- sparse autoencoders


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Give a data set of patches that tests only read."""
    return write_patches(tmp_path_factory.mktemp("data") / "toy.h5")


@pytest.fixture(scope="module")
def sparse_runs(toy, tmp_path_factory):
    """Give a function that trains without a break, once."""
    folder, known = tmp_path_factory.mktemp("sparse"), {}

    def get(optimizer, ranks):
        if (optimizer, ranks) not in known:
            run = folder / f"{optimizer}-{ranks}"
            options = ["--run", run, *SPARSE, "--optimizer", optimizer]
            launch.run("sparse", toy, *options, ranks=ranks).ok()
            known[optimizer, ranks] = run
        return known[optimizer, ranks]

    return get


@pytest.mark.parametrize(
    ("optimizer", "number", "ranks", "then"),
    [
        ("lbfgs", signal.SIGTERM, 0, 0),
        ("lbfgs", signal.SIGINT, 3, 3),
        ("lbfgs", signal.SIGUSR1, 2, 3),
        ("cg", signal.SIGUSR1, 2, 2),
        ("sgd", signal.SIGTERM, 3, 3),
    ],
)
def test_sparse(toy, sparse_runs, tmp_path, optimizer, number, ranks, then):
    run = tmp_path / "run"
    arguments = ["sparse", toy, "--run", run, *SPARSE, "--optimizer", optimizer]
    interrupt(run, "sparse", 9, *arguments, number=number, ranks=ranks)
    assert len(records(run, "sparse")) < 30
    assert not (run / "summary.json").exists()
    assert "going on after" in resume(run, ranks=then).stderr
    expected = sparse_runs(optimizer, ranks)
    found, other = records(run, "sparse"), records(expected, "sparse")
    assert [r["evaluation"] for r in found] == list(range(1, 31))
    summary, whole = read_summary(run), read_summary(expected)
    if ranks == then:
        assert summary["digest"] == whole["digest"]
        for key in ("cost", "gradient_norm", "iteration"):
            assert [r[key] for r in found] == [r[key] for r in other]
    else:
        # Sums over other ranks are rounded otherwise, in float64.
        vectors = [arrays(r, "sparse", "parameters/") for r in (run, expected)]
        distance = np.linalg.norm(vectors[0] - vectors[1])
        assert distance <= 1e-7 * np.linalg.norm(vectors[1])
    for key in ("evaluations", "iterations", "stopped_by"):
        assert summary[key] == whole[key]


def test_a_sparse_run_with_a_higher_limit(toy, sparse_runs, tmp_path):
    run = tmp_path / "run"
    arguments = ["sparse", toy, "--run", run, *SPARSE, "--resume", "auto"]
    launch.run(*arguments, "--evaluations", 11).ok()
    again = launch.run(*arguments, "--evaluations", 11).ok()
    assert "nothing to do" in again.stderr
    launch.run(*arguments, *OFTEN).ok()
    expected = read_summary(sparse_runs("lbfgs", 0))
    assert read_summary(run)["digest"] == expected["digest"]
    assert [r["evaluation"] for r in records(run, "sparse")] == list(range(1, 31))


@pytest.mark.parametrize("name", ["average", "exact"])
def test_compare(toy, tmp_path, name):
    """Interrupted in its first or its second run."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    launch.run("compare", toy, "--run", whole, *SPARSE, ranks=2).ok()
    arguments = ["compare", toy, "--run", run, *SPARSE]
    path = run / name / "metrics" / "sparse.jsonl"
    with launch.started(*arguments, ranks=2, program=slowly(), limit=60) as job:
        job.wait_for(path, 6)
        job.signal(signal.SIGTERM)
        result = job.finish()
    assert result.code == EXIT_RESUME, str(result)
    assert f"'mpilayer resume {run}'" in result.stderr
    result = resume(run, ranks=2)
    assert "Two runs from one start" in result.stdout
    found, other = (json.loads((r / "compare.json").read_text()) for r in (run, whole))
    for mode in ("average", "exact"):
        assert len(records(run / mode, "sparse")) == 30
        for key in ("average_cost", "exact_cost", "evaluations", "iterations"):
            assert found["runs"][mode][key] == other["runs"][mode][key]
    assert found["weights_distance"] == other["weights_distance"]


# --- going on, starting, and having nothing to do


def test_auto_starts_goes_on_and_says_when_all_is_done(tiny, unbroken, tmp_path):
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, "--resume", "auto"]
    interrupt(run, "layer-3", 2, *arguments, ranks=2)
    result = launch.run(*arguments, *OFTEN, "--checkpoint-seconds", 5).ok()
    assert "going on after epochs" in result.stderr
    assert_whole(run, unbroken["lockstep"])
    before = contents(run)
    for again in (arguments, ["resume", run]):
        for ranks in (0, 2):
            result = launch.run(*again, ranks=ranks).ok()
            assert result.stderr.count("there is nothing to do") == 1, str(result)
    assert contents(run) == before


def test_a_whole_sparse_run_has_nothing_left_to_do(sparse_runs, tmp_path):
    run = shutil.copytree(sparse_runs("lbfgs", 0), tmp_path / "run")
    before = contents(run)
    assert "nothing to do" in resume(run, ranks=2).stderr
    # The picture is drawn again.
    after = contents(run)
    assert {k for k in after if after[k] != before.get(k)} <= {"filters.png"}


def test_the_data_may_have_moved(broken, unbroken, tiny, tmp_path):
    moved = shutil.copy(tiny, tmp_path / "moved.h5")
    resume(broken, "--data", moved)
    assert_whole(broken, unbroken["lockstep"])


def test_an_interrupted_run_cannot_be_used_yet(broken, tmp_path):
    before = contents(broken)
    for command in ("finetune", "evaluate"):
        result = launch.run(command, broken)
        launch.assert_user_error(result, "interrupted", f"mpilayer resume {broken}")
    assert contents(broken) == before


# --- what is refused


def assert_refused(folder, words, *arguments, ranks=0):
    """Demand a refusal which leaves the folder as it was."""
    before = contents(folder)
    result = launch.run(*arguments, ranks=ranks)
    launch.assert_user_error(result, *words)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", 7], ["--seed was 0, is 7"]),
        (["--schedule", "greedy"], ["--schedule was lockstep, is greedy"]),
        (
            ["--minibatch", 40, "--learning-rate", 0.05],
            ["--minibatch was 50, is 40", "--learning-rate was 0.1, is 0.05"],
        ),
    ],
    ids=lambda value: "_".join(map(str, value)) if "--" in str(value[0]) else "",
)
def test_other_settings_of_pretraining(tiny, broken, options, words):
    arguments = ["pretrain", tiny, "--run", broken, *PRETRAIN, *options]
    words = ["must go on with the settings it began with", *words]
    assert_refused(broken, words, *arguments, "--resume", "auto")


def test_other_settings_are_reported_once_by_several_ranks(tiny, broken):
    arguments = ["pretrain", tiny, "--run", broken, *PRETRAIN, "--seed", 7]
    words = ["--seed was 0, is 7"]
    assert_refused(broken, words, *arguments, "--resume", "auto", ranks=2)


def test_other_settings_of_fine_tuning(tuned, tmp_path):
    run = shutil.copytree(tuned("adam", 0), tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--resume", "auto", "--optimizer"]
    words = ["--optimizer was adam, is sgd"]
    assert_refused(run, words, *arguments, "sgd")
    words = ["--loss was squared, is cross-entropy"]
    assert_refused(run, words, *arguments, "adam", "--loss", "cross-entropy")


def test_other_settings_of_stochastic_descent(toy, sparse_runs, tmp_path):
    """The rate falls to 0 over all evaluations: their number belongs to the course."""
    run = shutil.copytree(sparse_runs("sgd", 0), tmp_path / "run")
    arguments = ["sparse", toy, "--run", run, *SPARSE, "--resume", "auto"]
    arguments += ["--optimizer", "sgd"]
    words = ["--evaluations was 30, is 40", "--sgd-sparsity was gradient, is bias"]
    assert_refused(
        run, words, *arguments, "--evaluations", 40, "--sgd-sparsity", "bias"
    )
    found = launch.run(*arguments, "--corrections", 7).ok()
    assert "there is nothing to do" in found.stderr


def test_other_settings_of_a_sparse_run(toy, sparse_runs, tmp_path):
    run = shutil.copytree(sparse_runs("cg", 0), tmp_path / "run")
    arguments = ["sparse", toy, "--run", run, *SPARSE, "--resume", "auto"]
    words = ["--optimizer was cg, is lbfgs"]
    assert_refused(run, words, *arguments)
    arguments += ["--optimizer", "cg", "--hidden", 6, "--kl", "average"]
    words = ["--hidden was 5, is 6", "--kl was exact, is average"]
    assert_refused(run, words, *arguments)


def test_other_data(broken, tmp_path):
    other = write_pixels(tmp_path / "other.h5", n_rows=240)
    words = ["must be the data set of the run", "--data"]
    assert_refused(broken, words, "resume", broken, "--data", other)
    arguments = ["pretrain", other, "--run", broken, *PRETRAIN, "--resume", "auto"]
    assert_refused(broken, words, *arguments, ranks=2)
    gone = tmp_path / "none"
    assert_refused(broken, ["not a file"], "resume", broken, "--data", gone)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_folder_that_is_no_run(tmp_path, ranks):
    words = ["must be the directory of a run", "mpilayer pretrain"]
    assert_refused(tmp_path, words, "resume", tmp_path, ranks=ranks)
    assert_refused(tmp_path, words, "resume", tmp_path / "none", ranks=ranks)


def test_both_going_on_and_beginning_anew(tiny, broken):
    arguments = ["pretrain", tiny, "--run", broken, *PRETRAIN, "--replace"]
    words = ["--resume and --replace"]
    assert_refused(broken, words, *arguments, "--resume", "auto", ranks=2)


@pytest.mark.parametrize("time", ["soon", "1:2:3:4", "-5"])
def test_a_time_that_is_none(broken, time):
    words = ["--max-time", "MM:SS", time]
    assert_refused(broken, words, "resume", broken, f"--max-time={time}")


def test_more_ranks_than_layers(broken):
    words = ["4 ranks for 3 layers", "at most 3"]
    assert_refused(broken, words, "resume", broken, ranks=4)


# --- damage


def flip(path):
    """Change a byte of the weights."""
    arrays, _ = checkpoint.load(path)
    weights = arrays["parameters/weights" if "layer" in path.name else "best/weights_0"]
    content = bytearray(path.read_bytes())
    where = content.find(weights.tobytes()[:32])
    assert where > 0
    content[where + 5] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize(
    ("layer", "damage"), [(1, "flipped"), (2, "emptied"), (3, "truncated")]
)
def test_a_damaged_checkpoint_of_a_layer(broken, unbroken, layer, damage):
    files = sorted((broken / "checkpoints").glob(f"layer-{layer}.e*.h5"))
    assert len(files) >= 2
    DAMAGES[damage](files[-1])
    result = resume(broken, ranks=2 * (layer == 3))
    assert result.stderr.count(f"warning: {files[-1]} must") == 1, str(result)
    assert "Going on from an older one." in result.stderr
    assert_whole(broken, unbroken["lockstep"])


def test_all_checkpoints_are_damaged(broken, unbroken):
    files = list((broken / "checkpoints").glob("layer-*.h5"))
    for file in files:
        DAMAGES["emptied"](file)
    result = resume(broken)
    assert "going on after epochs 0, 0, 0" in result.stderr
    assert_whole(broken, unbroken["lockstep"])


def test_a_damaged_line_of_metrics(broken, unbroken):
    with (broken / "metrics" / "layer-1.jsonl").open("a") as file:
        file.write('{"layer": 1, "epo')
    resume(broken)
    assert_whole(broken, unbroken["lockstep"])


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_checkpoint_of_fine_tuning(unbroken, tuned, tmp_path, damage):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", "adam", *OFTEN]
    interrupt(run, "finetune", 3, *arguments)
    path = run / "checkpoints" / "finetuned.h5"
    DAMAGES[damage](path)
    result = resume(run)
    assert result.stderr.count(f"warning: {path} must") == 1
    expected = arrays(tuned("adam", 0), "finetuned", "best/")
    np.testing.assert_array_equal(arrays(run, "finetuned", "best/"), expected)
    assert [r["epoch"] for r in records(run, "finetune")] == list(range(1, 9))


@pytest.mark.parametrize("ranks", [0, 2])
def test_using_a_run_whose_last_checkpoint_is_damaged(sparse_runs, tmp_path, ranks):
    run = shutil.copytree(sparse_runs("lbfgs", 0), tmp_path / "run")
    path = run / "checkpoints" / "sparse.h5"
    shutil.copy(path, path.with_name("sparse.previous.h5"))
    expected = launch.run("evaluate", run, ranks=ranks).ok().stdout
    DAMAGES["truncated"](path)
    result = launch.run("evaluate", run, ranks=ranks).ok()
    assert result.stdout == expected
    assert result.stderr.count(f"warning: {path} must") == 1, str(result)
    assert "The one before it is used." in result.stderr


def test_no_whole_checkpoint_of_fine_tuning(unbroken, tmp_path):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", "adam", *OFTEN]
    interrupt(run, "finetune", 3, *arguments)
    for path in (run / "checkpoints").glob("finetuned*.h5"):
        DAMAGES["emptied"](path)
    assert_refused(run, ["finetuned", "HDF5"], "resume", run, ranks=2)


# --- no space


NO_SPACE = """
import errno
from pathlib import Path
from mpilayer.store import checkpoint
seal = checkpoint.seal

def full(content):
    if Path("{flag}").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return seal(content)

checkpoint.seal = full
"""


def assert_no_space(result):
    """Demand a message of one line, of each rank that has found it."""
    assert result.code == 2, str(result)
    assert "mpilayer: error:" in result.stderr, str(result)
    assert "no space left on device" in result.stderr, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert "failed; ending all ranks" not in result.stderr, str(result)


@pytest.mark.parametrize("ranks", [0, 3])
def test_a_checkpoint_that_cannot_be_written(tiny, unbroken, tmp_path, ranks):
    run, flag = tmp_path / "run", tmp_path / "flag"
    program = SLOW.format(seconds=0.03) + NO_SPACE.format(flag=flag)
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN, *OFTEN]
    options = {"ranks": ranks, "program": launch.driver(program), "limit": 60}
    with launch.started(*arguments, **options) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl", 2)
        flag.touch()
        assert_no_space(job.finish())
    for path in (run / "checkpoints").glob("layer-*.h5"):
        checkpoint.load(path)
    resume(run)
    assert_whole(run, unbroken["lockstep"])


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(run, metrics, *arguments, ranks):
    """Take all room while a run is on; demand a message, and give the room back."""
    ballast = run.parent / "ballast"
    options = {"ranks": ranks, "program": slowly(), "limit": 60}
    with launch.started(*arguments, *OFTEN, **options) as job:
        job.wait_for(run / "metrics" / f"{metrics}.jsonl", 3)
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        assert_no_space(job.finish())
    for path in (run / "checkpoints").glob("[!.]*.h5"):
        checkpoint.load(path)
    # There is no room to go on either; what it would go on from stays.
    before = whole_files(run)
    assert_no_space(launch.run("resume", run, ranks=ranks))
    assert whole_files(run).items() <= before.items()
    ballast.unlink()


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_disk_that_is_full_in_pretraining(tiny, unbroken, small_disk, ranks):
    run = small_disk / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN]
    fill_up(run, "layer-2", *arguments, ranks=ranks)
    resume(run)
    assert_whole(run, unbroken["lockstep"])


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_disk_that_is_full_in_fine_tuning(unbroken, tuned, small_disk, ranks):
    run = shutil.copytree(unbroken["lockstep"], small_disk / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", "adam"]
    fill_up(run, "finetune", *arguments, ranks=ranks)
    resume(run, ranks=ranks)
    expected = arrays(tuned("adam", ranks), "finetuned", "best/")
    np.testing.assert_array_equal(arrays(run, "finetuned", "best/"), expected)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_disk_that_is_full_in_a_sparse_run(toy, sparse_runs, small_disk, ranks):
    run = small_disk / "run"
    fill_up(run, "sparse", "sparse", toy, "--run", run, *SPARSE, ranks=ranks)
    resume(run, ranks=ranks)
    found, other = (read_summary(r) for r in (run, sparse_runs("lbfgs", ranks)))
    assert found["digest"] == other["digest"]


# --- no right to write


@contextmanager
def read_only(folder):
    """Let nobody write into a folder, not even root."""
    if os.geteuid() or mount("--bind", folder, folder):
        pytest.skip("needs the right to mount a file system")
    try:
        # Refused while a file is open for writing by this way.
        while mount("-o", "remount,bind,ro", folder):
            time.sleep(0.002)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mount(*arguments):
    """Return the exit code."""
    return subprocess.run(["mount", *arguments], capture_output=True).returncode


def whole_files(run):
    """Return the checkpoints with their digests, without what is being written."""
    found = contents(run / "checkpoints")
    return {name: digest for name, digest in found.items() if ".tmp" not in name}


def lose_the_right(run, metrics, *arguments, ranks):
    """Make a run read-only while it is on; demand a message, then and afterwards."""
    options = {"ranks": ranks, "program": slowly(), "limit": 60}
    with launch.started(*arguments, *OFTEN, **options) as job:
        job.wait_for(run / "metrics" / f"{metrics}.jsonl", 3)
        with read_only(run):
            before = whole_files(run)
            results = [job.finish(), launch.run("resume", run, ranks=ranks)]
            assert whole_files(run) == before
    for result in results:
        words = [f"{run}/", "must be writable; read-only file system"]
        launch.assert_user_error(result, *words)
        assert "failed; ending all ranks" not in result.stderr, str(result)
    for path in (run / "checkpoints").glob("*.h5"):
        checkpoint.load(path)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_pretraining_that_becomes_read_only(tiny, unbroken, tmp_path, ranks):
    run = tmp_path / "run"
    arguments = ["pretrain", tiny, "--run", run, *PRETRAIN]
    lose_the_right(run, "layer-2", *arguments, ranks=ranks)
    resume(run, ranks=ranks)
    assert_whole(run, unbroken["lockstep"])


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_fine_tuning_that_becomes_read_only(unbroken, tuned, tmp_path, ranks):
    run = shutil.copytree(unbroken["lockstep"], tmp_path / "run")
    arguments = ["finetune", run, *TUNE, "--optimizer", "adam"]
    lose_the_right(run, "finetune", *arguments, ranks=ranks)
    resume(run, ranks=ranks)
    expected = arrays(tuned("adam", ranks), "finetuned", "best/")
    np.testing.assert_array_equal(arrays(run, "finetuned", "best/"), expected)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_sparse_run_that_becomes_read_only(toy, sparse_runs, tmp_path, ranks):
    run = tmp_path / "run"
    lose_the_right(run, "sparse", "sparse", toy, "--run", run, *SPARSE, ranks=ranks)
    resume(run, ranks=ranks)
    found, other = (read_summary(r) for r in (run, sparse_runs("lbfgs", ranks)))
    assert found["digest"] == other["digest"]
