"""Runs that are broken off, and go on with the real command line."""

import json
import shutil
import signal
import time

import pytest

from tests.e2e.conftest import contents, digests, flip, records, write_pixels
from tests.support import launch
from tests.support.breaks import (
    EXIT_RESUME,
    METRICS,
    OFTEN,
    assert_same,
    assert_saved,
    interrupt,
    slowly,
)

GREEDY = ("--schedule", "greedy")
# Blocks for three ranks, though there are few rows.
THIRDS = ("--kl", "average", "--shards", "3")


def resume(run, *options, ranks=0):
    """Go on to the end."""
    return launch.run("resume", run, *options, ranks=ranks).ok()


@pytest.fixture(scope="module")
def half(trainings, tmp_path_factory):
    """Give a pre-training that was interrupted on the way, for copies."""
    return trainings.broken("pretrain", tmp_path_factory.mktemp("half") / "run", *OFTEN)


@pytest.fixture
def broken(half, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(half, tmp_path / "run")


# --- asked to end


@pytest.mark.parametrize(
    ("kind", "options", "number", "ranks", "then"),
    [
        ("pretrain", (), signal.SIGTERM, 0, 0),
        ("pretrain", (), signal.SIGUSR1, 2, 3),
        ("pretrain", GREEDY, signal.SIGINT, 3, 0),
        ("finetune", (), signal.SIGINT, 2, 2),
        ("finetune", (), signal.SIGUSR1, 0, 3),
        ("finetune", ("--optimizer", "sgd"), signal.SIGTERM, 3, 3),
        ("sparse", (), signal.SIGINT, 0, 0),
        ("sparse", THIRDS, signal.SIGUSR1, 2, 3),
        ("sparse", (*THIRDS, "--optimizer", "cg"), signal.SIGUSR1, 3, 0),
        ("sparse", (*THIRDS, "--optimizer", "sgd"), signal.SIGTERM, 0, 3),
    ],
)
def test_a_signal(trainings, tmp_path, kind, options, number, ranks, then):
    run = tmp_path / "run"
    trainings.broken(kind, run, *options, number=number, ranks=ranks)
    whole = trainings.whole(kind, ranks * (kind == "finetune"), *options)
    assert (run / "summary.json").exists() == (kind == "finetune")
    done, all_of_them = (len(records(r, METRICS[kind])) for r in (run, whole))
    assert done < all_of_them
    assert "going on after" in resume(run, ranks=then).stderr
    assert_same(run, whole, bits=then == ranks or kind != "finetune")


def test_time_that_is_over_again_and_again(trainings, tmp_path):
    """Every launch does a part; the last one ends with 0."""
    run, codes = tmp_path / "run", []
    arguments = trainings.begin("pretrain", run, "--resume", "auto", "--max-time", 1.5)
    while not codes or codes[-1] == EXIT_RESUME:
        result = launch.run(*arguments, program=slowly(0.1), ranks=2)
        codes.append(result.code)
        if result.code:
            assert_saved(result, run, "the time limit")
    assert codes[-1] == 0
    assert len(codes) > 1
    trainings.assert_whole(run)


@pytest.mark.parametrize(("ranks", "extra"), [(0, 1), (3, 1)])
def test_an_asynchronous_run_is_recorded_with_its_interruption(
    trainings, tmp_path, ranks, extra
):
    run, again = tmp_path / "run", tmp_path / "again"
    options = ["--schedule", "async", "--extra-epochs", f"0,{extra},{extra}"]
    trainings.broken("pretrain", run, *options, ranks=ranks)
    resume(run, ranks=ranks)
    table = f"replay:{run / 'schedule.json'}"
    launch.run(*trainings.begin("pretrain", again, "--schedule", table)).ok()
    assert digests(again) == digests(run)
    for name in ("layer-1", "layer-2", "layer-3"):
        found, replayed = records(run, name), records(again, name)
        for key in ("epoch", "used", "train_error"):
            assert [r[key] for r in found] == [r[key] for r in replayed]


def test_a_killed_run_goes_on_from_its_last_checkpoints(trainings, tmp_path):
    run = tmp_path / "run"
    arguments = trainings.begin("pretrain", run, *OFTEN)
    with launch.started(*arguments, program=slowly(), limit=60) as job:
        job.wait_for(run / "metrics" / "layer-3.jsonl", 4)
        job.signal(signal.SIGKILL)
        job.finish()
    assert 1 <= len(list((run / "checkpoints").glob("layer-1.e*.h5"))) <= 5
    resume(run, ranks=2)
    trainings.assert_whole(run)


def test_the_second_sigint_ends_at_once(trainings, tmp_path):
    run = tmp_path / "run"
    arguments = trainings.begin("pretrain", run, *OFTEN)
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


@pytest.mark.parametrize("name", ["average", "exact"])
def test_compare(toy, trainings, tmp_path, name):
    """Interrupted in its first or its second run."""
    run = tmp_path / "run"
    arguments = ["compare", toy, "--run", run, *trainings.begin("sparse", run)[4:]]
    metrics = f"../{name}/metrics/sparse"
    interrupt(run, metrics, *arguments, lines=6, ranks=2)
    assert "Two runs from one start, 2 shards, 3 ranks" in resume(run, ranks=3).stdout
    found = json.loads((run / "compare.json").read_text())
    assert found["weights_distance"] > 0
    # Nothing but the start is common to both: each is as if it had been alone.
    for mode, options in (
        ("average", ("--kl", "average", "--shards", 2)),
        ("exact", ()),
    ):
        whole = trainings.whole("sparse", 0, *options)
        assert_same(run / mode, whole)


# --- going on, starting, and having nothing to do


def test_auto_starts_goes_on_and_says_when_all_is_done(trainings, tmp_path):
    run = tmp_path / "run"
    arguments = trainings.begin("pretrain", run, "--resume", "auto")
    interrupt(run, "layer-3", *arguments, lines=2, ranks=2)
    result = launch.run(*arguments, *OFTEN, "--checkpoint-seconds", 5).ok()
    assert "going on after epochs" in result.stderr
    trainings.assert_whole(run)
    before = contents(run)
    for again, ranks in ((arguments, 0), (["resume", run], 2)):
        result = launch.run(*again, ranks=ranks).ok()
        assert result.stderr.count("there is nothing to do") == 1, str(result)
    assert contents(run) == before


def test_a_sparse_run_with_a_higher_limit(trainings, tmp_path):
    run = tmp_path / "run"
    arguments = trainings.begin("sparse", run, "--resume", "auto")
    launch.run(*arguments, "--evaluations", 11).ok()
    again = launch.run(*arguments, "--evaluations", 11).ok()
    assert "nothing to do" in again.stderr
    launch.run(*arguments, *OFTEN).ok()
    trainings.assert_whole(run, "sparse")
    before = contents(run)
    assert "nothing to do" in resume(run, ranks=2).stderr
    # The picture is drawn again.
    after = contents(run)
    assert {k for k in after if after[k] != before.get(k)} <= {"filters.png"}


def test_the_data_may_have_moved(broken, trainings, tiny, tmp_path):
    resume(broken, "--data", shutil.copy(tiny, tmp_path / "moved.h5"))
    trainings.assert_whole(broken)


# --- what is refused


def test_an_interrupted_run_cannot_be_used_yet(broken, refused):
    for command in ("finetune", "evaluate"):
        refused(["interrupted", f"mpilayer resume {broken}"], command, broken)


@pytest.mark.parametrize(
    ("kind", "began", "options", "words"),
    [
        ("pretrain", (), "--seed 7", ["--seed was 0, is 7"]),
        ("pretrain", (), "--schedule greedy", ["--schedule was lockstep, is greedy"]),
        (
            *("pretrain", (), "--minibatch 40 --learning-rate 0.05"),
            ["--minibatch was 50, is 40", "--learning-rate was 0.1, is 0.05"],
        ),
        ("finetune", (), "--optimizer sgd", ["--optimizer was adam, is sgd"]),
        (
            *("finetune", (), "--loss cross-entropy"),
            ["--loss was squared, is cross-entropy"],
        ),
        # The rate falls to 0 over all evaluations: their number is of the course.
        (
            *("sparse", ("--optimizer", "sgd")),
            "--optimizer sgd --evaluations 40 --sgd-sparsity bias",
            ["--evaluations was 30, is 40", "--sgd-sparsity was gradient, is bias"],
        ),
        ("sparse", ("--optimizer", "cg"), "", ["--optimizer was cg, is lbfgs"]),
        (
            *("sparse", (), "--hidden 6 --kl average"),
            ["--hidden was 5, is 6", "--kl was exact, is average"],
        ),
        ("sparse", THIRDS, "--kl average --shards 2", ["--shards was 3, is 2"]),
    ],
)
def test_other_settings(trainings, refused, tmp_path, kind, began, options, words):
    run = shutil.copytree(trainings.whole(kind, 0, *began), tmp_path / "run")
    arguments = trainings.begin(kind, run, "--resume", "auto", *options.split())
    words = ["must go on with the settings it began with", *words]
    refused(words, *arguments, ranks=2 * (options == "--seed 7"))


def test_settings_that_nothing_reads_may_be_others(trainings, tmp_path):
    run = shutil.copytree(
        trainings.whole("sparse", 0, "--optimizer", "sgd"), tmp_path / "run"
    )
    options = ["--resume", "auto", "--optimizer", "sgd", "--corrections", 7]
    found = launch.run(*trainings.begin("sparse", run, *options)).ok()
    assert "there is nothing to do" in found.stderr


def test_other_data(trainings, broken, refused, tmp_path):
    other = write_pixels(tmp_path / "other.h5", n_rows=240)
    words = ["must be the data set of the run", "--data"]
    refused(words, "resume", broken, "--data", other)
    _, _, *options = trainings.begin("pretrain", broken, "--resume", "auto")
    refused(words, "pretrain", other, *options, ranks=2)
    refused("not a file", "resume", broken, "--data", tmp_path / "none")


def test_options_that_do_not_fit(trainings, broken, refused):
    arguments = trainings.begin("pretrain", broken, "--replace", "--resume", "auto")
    refused("--resume and --replace", *arguments, ranks=2)
    for limit in ("soon", "1:2:3:4", "-5"):
        words = ["--max-time", "MM:SS", limit]
        refused(words, "resume", broken, f"--max-time={limit}")
    refused(["4 ranks for 3 layers", "at most 3"], "resume", broken, ranks=4)


# --- damage: where it may be is in ``tests/unit/runs/test_damage.py``


@pytest.mark.parametrize(
    ("damage", "ranks"), [("truncated", 2), ("emptied", 0), ("a line", 0)]
)
def test_damaged_files(broken, trainings, damage, ranks):
    files = sorted((broken / "checkpoints").glob("layer-3.e*.h5"))
    assert len(files) >= 2
    if damage == "truncated":
        files[-1].write_bytes(files[-1].read_bytes()[:3000])
    elif damage == "emptied":
        for path in (broken / "checkpoints").glob("layer-*.h5"):
            path.write_bytes(b"")
    else:
        with (broken / "metrics" / "layer-1.jsonl").open("a") as file:
            file.write('{"layer": 1, "epo')
    result = resume(broken, ranks=ranks)
    if damage == "truncated":
        assert result.stderr.count(f"warning: {files[-1]} must") == 1, str(result)
        assert "Going on from an older one." in result.stderr
    if damage == "emptied":
        assert "going on after epochs 0, 0, 0" in result.stderr
    trainings.assert_whole(broken)


def test_using_a_run_whose_last_checkpoint_is_damaged(trainings, tmp_path):
    run = shutil.copytree(trainings.whole("sparse"), tmp_path / "run")
    path = run / "checkpoints" / "sparse.h5"
    shutil.copy(path, path.with_name("sparse.previous.h5"))
    expected = launch.run("evaluate", run, ranks=2).ok().stdout
    flip(path)
    result = launch.run("evaluate", run, ranks=2).ok()
    assert result.stdout == expected
    assert result.stderr.count(f"warning: {path} must") == 1, str(result)
    assert "The one before it is used." in result.stderr


def test_no_whole_checkpoint_of_fine_tuning(trainings, refused, tmp_path):
    run = trainings.broken("finetune", tmp_path / "run", *OFTEN)
    for path in (run / "checkpoints").glob("finetuned*.h5"):
        path.write_bytes(b"")
    refused(["finetuned", "HDF5"], "resume", run, ranks=2)
