"""Runs that are broken off, and go on with the real command line."""

import json
import shutil
import signal
import time
import tomllib

import pytest

from benchmarks import traces
from tests.support.breaks import METRICS, OFTEN, assert_same, interrupt, slowly
from tests.support.command import refuse, said, told
from tests.support.small import contents, digests, records, write_pixels

# Blocks for three ranks, though there are few rows.
THIRDS = "--kl average --shards 3"


@pytest.fixture(scope="module")
def half(trainings, tmp_path_factory):
    """Give a pre-training that was interrupted on the way, for copies."""
    return trainings.broken("pretrain", tmp_path_factory.mktemp("half") / "run", OFTEN)


@pytest.fixture
def broken(half, tmp_path):
    """Give a copy of it."""
    return shutil.copytree(half, tmp_path / "run")


# --- asked to end


@pytest.mark.parametrize(
    ("kind", "options", "number", "ranks", "then"),
    [
        ("pretrain", "", signal.SIGTERM, 0, 0),
        ("pretrain", "", signal.SIGUSR1, 2, 3),
        ("pretrain", "--schedule greedy", signal.SIGINT, 3, 0),
        ("finetune", "", signal.SIGINT, 2, 2),
        ("finetune", "", signal.SIGUSR1, 0, 3),
        ("sparse", "", signal.SIGINT, 0, 0),
        ("sparse", THIRDS, signal.SIGUSR1, 2, 3),
        ("sparse", f"{THIRDS} --optimizer sgd", signal.SIGTERM, 0, 3),
    ],
)
def test_a_signal(trainings, tmp_path, kind, options, number, ranks, then):
    run = trainings.broken(kind, tmp_path / "run", options, number=number, ranks=ranks)
    whole = trainings.whole(kind, ranks * (kind == "finetune"), options)
    assert (run / "summary.json").exists() == (kind == "finetune")
    done, all_of_them = (len(records(r, METRICS[kind])) for r in (run, whole))
    assert done < all_of_them
    assert "going on after" in told(tmp_path, "resume run", ranks=then)
    assert_same(run, whole, bits=then == ranks or kind != "finetune")


@pytest.mark.parametrize("ranks", [0, 3])
def test_an_asynchronous_run_is_recorded_with_its_interruption(
    trainings, tmp_path, ranks
):
    run, again = tmp_path / "run", tmp_path / "again"
    options = "--schedule async --extra-epochs 0,1,1"
    trainings.broken("pretrain", run, options, ranks=ranks)
    said(tmp_path, "resume run", ranks=ranks)
    table = f"--schedule replay:{run / 'schedule.json'}"
    said(tmp_path, trainings.line("pretrain", again, table))
    # As recorded: the paper's eq. 6, not what a table streams by default.
    config = tomllib.loads((again / "config.toml").read_text())
    assert config["pretrain"]["activations"] == "transformed"
    assert digests(again) == digests(run)
    for name in ("layer-1", "layer-2", "layer-3"):
        for line, replayed in zip(
            records(run, name), records(again, name), strict=True
        ):
            for key in ("epoch", "used", "train_error"):
                assert line[key] == replayed[key]


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_killed_run_goes_on_from_its_last_checkpoints(trainings, tmp_path, kind):
    run = tmp_path / "run"
    with trainings.started(kind, run, OFTEN, program=slowly()) as job:
        job.wait_for(run / "metrics" / f"{METRICS[kind]}.jsonl", 4)
        job.signal(signal.SIGKILL)
        job.finish()
    if kind == "pretrain":
        assert 1 <= len(list((run / "checkpoints").glob("layer-1.e*.h5"))) <= 5
    before, ranks = traces.metrics(run), 2 * (kind == "pretrain")
    # One that is being written, one that waits for the layers above.
    text = told(tmp_path, "resume run", ranks=ranks)
    assert traces.lost_work(before, text) <= 4
    trainings.assert_whole(run, kind)


def test_the_second_sigint_ends_at_once(trainings, tmp_path):
    run = tmp_path / "run"
    with trainings.started("pretrain", run, OFTEN, program=slowly(2)) as job:
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
def test_compare(trainings, tmp_path, name):
    """Interrupted in its first or its second run."""
    run = tmp_path / "run"
    line = trainings.line("sparse", run).replace("sparse", "compare", 1)
    interrupt(line, run, f"../{name}/metrics/sparse", lines=6, ranks=2)
    words = "Two runs from one start, 2 shards, 3 ranks"
    assert words in said(tmp_path, "mpiexec -n 3 resume run")
    found = json.loads((run / "compare.json").read_text())
    assert found["weights_distance"] > 0
    # Nothing but the start is common to both: each is as if it had been alone.
    for mode, options in {"average": "--kl average --shards 2", "exact": ""}.items():
        assert_same(run / mode, trainings.whole("sparse", 0, options))


# --- going on, starting, and having nothing to do


def test_auto_starts_goes_on_and_says_when_all_is_done(trainings, tmp_path):
    run = tmp_path / "run"
    line = trainings.line("pretrain", run, "--resume auto")
    interrupt(line, run, "layer-3", lines=2, ranks=2)
    often = f"{line} {OFTEN} --checkpoint-seconds 5"
    assert "going on after epochs" in told(tmp_path, often)
    trainings.assert_whole(run)
    before = contents(run)
    for again in (line, "mpiexec -n 2 resume run"):
        assert told(tmp_path, again).count("there is nothing to do") == 1
    assert contents(run) == before


def test_a_sparse_run_with_a_higher_limit(trainings, tmp_path):
    run = tmp_path / "run"
    line = trainings.line("sparse", run, "--resume auto")
    said(tmp_path, f"{line} --evaluations 11")
    assert "nothing to do" in told(tmp_path, f"{line} --evaluations 11")
    said(tmp_path, f"{line} {OFTEN}")
    trainings.assert_whole(run, "sparse")
    before = contents(run)
    assert "nothing to do" in told(tmp_path, "mpiexec -n 2 resume run")
    # The picture is drawn again.
    after = contents(run)
    assert {k for k in after if after[k] != before.get(k)} <= {"filters.png"}


def test_the_data_may_have_moved(broken, trainings, tiny, tmp_path):
    shutil.copy(tiny, tmp_path / "moved.h5")
    said(tmp_path, "resume run --data moved.h5")
    trainings.assert_whole(broken)


def test_settings_that_nothing_reads_may_be_others(trainings, tmp_path):
    whole = trainings.whole("sparse", 0, "--optimizer sgd")
    run = shutil.copytree(whole, tmp_path / "run")
    options = "--resume auto --optimizer sgd --corrections 7"
    text = told(tmp_path, trainings.line("sparse", run, options))
    assert "there is nothing to do" in text


@pytest.mark.parametrize("damage", ["the last one", "all"])
def test_damaged_checkpoints(broken, trainings, tmp_path, damage):
    """Where the damage may be is in ``tests/unit/runs/test_damage.py``."""
    last = max((broken / "checkpoints").glob("layer-3.e*.h5"))
    if damage == "all":
        for path in (broken / "checkpoints").glob("layer-*.h5"):
            path.write_bytes(b"")
        assert "going on after epochs 0, 0, 0" in told(tmp_path, "resume run")
    else:
        last.write_bytes(last.read_bytes()[:3000])
        text = told(tmp_path, f"mpiexec -n 2 resume {broken}")
        assert text.count(f"warning: {last} must") == 1
        assert "Going on from an older one." in text
    trainings.assert_whole(broken)


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "began", "options", "words"),
    [
        ("pretrain", "", "--seed 7", ("--seed was 0, is 7",)),
        ("pretrain", "", "--minibatch 40 --learning-rate 0.05",
         ("--minibatch was 50, is 40", "--learning-rate was 0.1, is 0.05")),
        ("finetune", "", "--optimizer sgd", ("--optimizer was adam, is sgd",)),
        # The rate falls to 0 over all evaluations: their number is of the course.
        ("sparse", "--optimizer sgd",
         "--optimizer sgd --evaluations 40 --sgd-sparsity bias",
         ("--evaluations was 30, is 40", "--sgd-sparsity was gradient, is bias")),
    ],
)  # fmt: skip
def test_other_settings(trainings, tmp_path, kind, began, options, words):
    run = shutil.copytree(trainings.whole(kind, 0, began), tmp_path / "run")
    line = trainings.line(kind, run, f"--resume auto {options}")
    words = ("must go on with the settings it began with", *words)
    refuse(tmp_path, line, *words, ranks=2 * (options == "--seed 7"))


def test_what_does_not_fit(trainings, broken, tmp_path):
    other = write_pixels(tmp_path / "other.h5", n_rows=240)
    mine, options = trainings.data["pretrain"], "--resume auto --replace"
    line = trainings.line("pretrain", broken, "--resume auto")
    data = ("must be the data set of the run", "--data")
    interrupted = ("interrupted", f"mpilayer resume {broken}")
    for wrong, words in {
        f"finetune {broken}": interrupted,
        f"evaluate {broken}": interrupted,
        f"resume run --data {other}": data,
        f"mpiexec -n 2 {line.replace(str(mine), str(other))}": data,
        "resume run --data none": ("not a file",),
        "mpiexec -n 2 resume run --threads 2": ("--threads was 1, is 2",),
        f"mpiexec -n 2 {line} {options}": ("--resume and --replace",),
        "resume run --max-time=1:2:3:4": ("--max-time", "MM:SS", "1:2:3:4"),
        "mpiexec -n 4 resume run": ("4 ranks for 3 slices of 3 layers", "at most 3"),
    }.items():
        refuse(tmp_path, wrong, *words)
