"""Sweeps: broken off, several at once, in parts; what diverges; what is refused."""

import csv
import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from mpilayer.runs.session import RunLock
from tests.support import launch
from tests.support.breaks import KILL, acting, slowly
from tests.support.command import call, found, refuse, said, told
from tests.support.small import contents, digests

SWEEP = """
[data]
path = "tiny.h5"
[pretrain]
layers = [14, 8]
epochs = 2
minibatch = 50
[finetune]
epochs = 2
minibatch = 50
[sweep]
seeds = "0-1"
[sweep.cases.greedy]
pretrain.schedule = "greedy"
pretrain.extra_epochs = 0
[sweep.cases.all-at-once]
pretrain.schedule = "lockstep"
"""
NAMES = [f"{case}/seed-{k}" for k in range(2) for case in ("greedy", "all-at-once")]
OFTEN = "--checkpoint-every 1 --threads 1"
DRAWN = find_spec("matplotlib") is not None


def prepared(folder, tiny):
    """Put a sweep and its data into a folder; return it."""
    (folder / "tiny.h5").symlink_to(tiny)
    (folder / "try.toml").write_text(SWEEP)
    (folder / "one.toml").write_text(SWEEP.partition("[sweep]")[0])
    return folder


@pytest.fixture
def folder(tmp_path, tiny):
    """Give a folder with a sweep, one experiment of it, and their data."""
    return prepared(tmp_path, tiny)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Give the sweep on one rank, by nobody disturbed."""
    folder = prepared(tmp_path_factory.mktemp("sweep"), tiny)
    said(folder, f"run try.toml --run whole {OFTEN}")
    return folder / "whole"


def rows_of(sweep):
    return list(csv.DictReader((sweep / "sweep.csv").read_text().splitlines()))


def assert_same(sweep, whole):
    """Demand the same table, and the same weights of every run."""
    assert (sweep / "sweep.csv").read_text() == (whole / "sweep.csv").read_text()
    for name in NAMES:
        assert digests(sweep / name / "deep") == digests(whole / name / "deep")
        for run in (sweep, whole):
            assert "experiment" in (run / name / "complete").read_text()


def test_a_sweep_is_its_experiments_with_a_table(folder, whole):
    settings = "pretrain.schedule=greedy pretrain.seed=1 finetune.seed=1"
    said(folder, f"run one.toml --set {settings} --run one --threads 1")
    assert digests(folder / "one" / "deep") == digests(whole / "greedy/seed-1/deep")
    table = json.loads((whole / "sweep.json").read_text())
    runs = rows_of(whole)
    errors = [float(run["validation"]) for run in runs]
    assert errors == sorted(errors)
    assert sorted(run["run"] for run in runs) == sorted(NAMES)
    (pair,) = table["differences"]
    assert {pair["setting"], pair["minus"]} == {"greedy", "all-at-once"}
    own = {
        case: [float(r["test"]) for k in range(2) for r in runs if r["run"] == case % k]
        for case in ("greedy/seed-%d", "all-at-once/seed-%d")
    }
    means = {case.partition("/")[0]: sum(v) / 2 for case, v in own.items()}
    expected = means[pair["setting"]] - means[pair["minus"]]
    assert pair["test"]["mean"] == pytest.approx(expected)
    low, high = pair["test"]["interval"]
    assert low < pair["test"]["mean"] < high
    assert (whole / "report.html").is_file() == DRAWN
    assert (whole / "complete").read_text() == "sweep\n"


def test_it_goes_on_to_more_seeds_and_to_nothing_else(folder, whole):
    run = Path(shutil.copytree(whole, folder / "whole"))
    kept = contents(run / "greedy")
    refuse(folder, "run try.toml --run whole", "holds a sweep already", "--replace")
    again = f"run try.toml --run whole --resume auto {OFTEN}"
    refuse(folder, f"{again} --seeds 1-3", "not asked for now: greedy/seed-0")
    words = ("greedy/seed-0: finetune.epochs was 2, is 5", "experiment.toml --resume")
    refuse(folder, f"{again} --set finetune.epochs=5", *words)
    before = contents(run)
    assert "4 over" in told(folder, "run whole/experiment.toml --resume auto")
    after = contents(run)
    assert {k for k in before if before[k] != after.get(k)} <= {"report.html"}
    assert "whole: 4 of 4 runs over" in said(folder, "watch whole --once")
    text = told(folder, f"{again} --seeds 0-2")
    assert "4 over already" in text
    assert text.count("validation") == 2
    assert kept.items() <= contents(run / "greedy").items()


def test_only_a_sweep_is_replaced(folder, whole):
    run = Path(shutil.copytree(whole, folder / "whole"))
    line = "run try.toml --run whole --replace --seeds 7"
    for place in ("mine.txt", "greedy/mine.txt", "greedy/seed-0/mine.txt"):
        (run / place).write_text("precious")
        refuse(folder, line, f"other files ({place})")
        (run / place).unlink()
    for how in ("--resume auto", "--replace", ""):
        refuse(folder, f"run one.toml --run whole {how}", "holds a sweep")
    assert "0 over" in told(folder, line)
    assert not (run / "greedy" / "seed-0").exists()


@pytest.mark.parametrize("ranks", [0, 2])
def test_interrupted_it_goes_on_to_the_same_table(folder, whole, ranks):
    line = f"run try.toml {OFTEN} --at-once {ranks or 1}"
    run = folder / "runs" / "try"
    options = {"cwd": folder, "program": slowly(0.05), "ranks": ranks}
    with launch.started(*line.split(), **options) as job:
        job.wait_for(run / NAMES[2] / "deep" / "metrics" / "layer-1.jsonl")
        job.signal(signal.SIGTERM)
        result = job.finish()
    assert result.code == 75, result
    words = "saved and stopped because of SIGTERM; go on with the same command"
    assert result.stderr.count(words) == 1, result
    assert not (run / "sweep.csv").exists()
    said(folder, f"{line} --resume auto", ranks=ranks)
    assert_same(run, whole)


@pytest.mark.parametrize("part", [0, 1])
def test_who_is_at_work_is_left_alone(folder, whole, part):
    run = Path(shutil.copytree(whole, folder / "whole"))
    lock = RunLock(run / f".turns-{part}")
    assert lock.take()
    (run / f".turns-{part}" / ".lock").write_text("elsewhere 1")
    before = contents(run)
    words = ("Wait until it has ended", f"whole/.turns-{part}")
    refuse(folder, "run try.toml --run whole --replace --seeds 7", *words)
    assert contents(run) == before
    lock.release(True)


def test_a_killed_rank_ends_all_groups_and_the_rest_is_done_later(folder, whole):
    line = f"run try.toml {OFTEN} --at-once 2"
    program = acting("fine-tuning", KILL, 1)
    options = {"cwd": folder, "program": program, "ranks": 2}
    result = launch.run(*line.split(), **options)
    assert result.code not in (0, 2), result
    said(folder, f"{line} --resume auto", ranks=2)
    assert_same(folder / "runs" / "try", whole)


def test_two_at_once_on_four_ranks_are_as_one_after_the_other(folder, whole):
    text = told(folder, f"run try.toml {OFTEN} --at-once 2", ranks=4)
    assert "2 at once, 2 ranks each" in text
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert sorted(line.partition("]")[0] for line in lines) == [
        f"[{k}/4" for k in range(1, 5)
    ]
    assert_same(folder / "runs" / "try", whole)
    assert not [p for p in (folder / "runs" / "try").iterdir() if p.name[0] == "."]


def test_parts_of_a_job_array_make_one_sweep(folder, whole):
    line = f"run try.toml {OFTEN} --resume auto"
    for part in range(2):
        assert "mpilayer report" in told(folder, f"{line} --part {part}/2")
        report = found(folder, "report runs/try -o x.html --replace") if DRAWN else {}
        done = [run["state"] for run in report.get("runs", ())].count("complete")
        assert done == (2 * (part + 1) if DRAWN else 0)
    marks = (folder / "runs" / "try" / "complete").read_text().split()
    assert marks == ["part-0/2", "part-1/2"]
    said(folder, line)
    assert_same(folder / "runs" / "try", whole)
    script = said(folder, "job run try.toml --run runs/try --array 2 -o -")
    assert "#SBATCH --array=0-1" in script
    assert '--part "$SLURM_ARRAY_TASK_ID/2"' in script
    assert '--mark "part-$SLURM_ARRAY_TASK_ID/2"' in script


@pytest.mark.parametrize("ranks", [0, 2])
def test_what_diverges_is_a_row(folder, ranks):
    rates = "pretrain.learning_rate=0.001 pretrain.learning_rate=1e6"
    line = f"run try.toml --set pretrain.visible=linear {rates} --seeds 0"
    line += f" --at-once {ranks or 1}"
    for more in ("", " --resume auto"):
        result = call(folder, line + more, ranks=ranks)
        launch.assert_user_error(result, "2 of 4 runs diverged", "learning_rate=1e+06")
        assert "weights must stay finite" in result.stdout
        states = [row["state"] for row in rows_of(folder / "runs" / "try")]
        assert states == ["complete"] * 2 + ["diverged"] * 2
    assert "4 over already" in result.stderr


@pytest.mark.parametrize(
    ("options", "words", "ranks"),
    [
        ("--seeds 0-99999", ("more than 1000 runs", "200000", "--yes"), 2),
        ("--at-once 0", ("--at-once must be a part of the ranks, 1",), 0),
        ("--at-once 3", ("--at-once must be a part of the ranks, 2",), 2),
        ("--part 2/2", ("K/N",), 0),
        ("--resume auto --replace", ("--resume and --replace",), 0),
        ("--set data.path=none.h5", ("none.h5",), 0),
        ("--run .", ("holds other files",), 0),
        ("--run try.toml", ("--run must name a new folder", "is a file"), 0),
    ],
)
def test_refused_before_anything_is_written(folder, options, words, ranks):
    refuse(folder, f"run try.toml {options}", *words, ranks=ranks)


def test_options_of_sweeps_alone(folder):
    for option in ("--json", "--at-once 2", "--part 0/2"):
        refuse(folder, f"run one.toml {option}", "for sweeps", "--seeds")
    for option in ("--array 2", "--at-once 2"):
        refuse(folder, f"job run one.toml --run x -o - {option}", "for sweeps")
    refuse(folder, "job run try.toml --run x -o - --array 5", "at most the runs")
    (folder / "x").mkdir()
    refuse(folder, "report x --json -o y.html", "--json prints the table of a sweep")
