"""Which runs a sweep is made of: values, cases, seeds, names, and what is refused."""

from pathlib import Path

import pytest

from mpilayer.errors import ConfigError
from mpilayer.runs.experiment import Plan
from mpilayer.sweep.plan import check_goes_on, read_sweep

BASE = """
[data]
source = "x.npy"
[pretrain]
layers = [5, 2]
[finetune]
epochs = 2
"""
CASES = """
[sweep]
seeds = "0-1"
[sweep.cases.greedy]
pretrain.schedule = "greedy"
pretrain.extra_epochs = 0
[sweep.cases.all-at-once]
"pretrain.lag" = [1]
"""


@pytest.fixture
def sweep(tmp_path):
    """Give a reader of text and options."""

    def read(text=BASE, *changes, seeds=None, many=False):
        path = tmp_path / "try.toml"
        path.write_text(text)
        return read_sweep(path, changes, seeds, Path("there"), many)

    return read


def names(plan):
    return [member.name for member in plan.members]


@pytest.mark.parametrize(
    ("text", "changes", "seeds", "expected"),
    [
        (BASE, (), "0,3,7-8", ["seed-0", "seed-3", "seed-7", "seed-8"]),
        (BASE, ("finetune.epochs=1,3",), None, ["epochs=1", "epochs=3"]),
        (
            BASE,
            ("pretrain.schedule=greedy,lockstep", "finetune.epochs=1,3"),
            None,
            [
                f"schedule={s},epochs={n}"
                for s in ("greedy", "lockstep")
                for n in (1, 3)
            ],
        ),
        (
            BASE,
            ("finetune.minibatch=1,2", "pretrain.minibatch=3,4"),
            None,
            [
                f"finetune.minibatch={f},pretrain.minibatch={p}"
                for f in (1, 2)
                for p in (3, 4)
            ],
        ),
        # Those of a seed together; lists by another --set.
        (
            BASE,
            ("pretrain.layers=9,5", "pretrain.layers=9"),
            "1,0",
            [f"layers={n}/seed-{k}" for k in (1, 0) for n in ("9-5", "9")],
        ),
        (
            CASES + BASE,
            (),
            None,
            [f"{c}/seed-{k}" for k in (0, 1) for c in ("greedy", "all-at-once")],
        ),
        (CASES + BASE, (), "7", ["greedy/seed-7", "all-at-once/seed-7"]),
        (
            BASE + "[sweep]\nfinetune.epochs = [1, 3]\npretrain.layers = [[9, 5], 9]\n",
            ("finetune.epochs=4",),
            None,
            ["layers=9-5", "layers=9"],
        ),
    ],
)
def test_names_say_what_differs(sweep, text, changes, seeds, expected):
    assert names(sweep(text, *changes, seeds=seeds)) == expected


def test_settings_and_seeds_reach_every_step(sweep):
    first, second, *others = sweep(CASES + BASE, seeds="4").members
    assert not others
    assert {config.seed for config in first.plan.training.values()} == {4}
    assert first.plan.training["pretrain"].schedule == "greedy"
    assert first.plan.training["pretrain"].extra_epochs == (0,)
    assert second.plan.training["pretrain"].lag == (1,)
    assert first.plan.path == Path("there/greedy/seed-4")
    assert first.plan.steps == ("data", "pretrain", "finetune")


def test_data_are_shared_where_they_do_not_differ(sweep):
    paths = [m.plan.data.path for m in sweep(seeds="0-1").members]
    assert paths == ["there/data.h5"] * 2
    changes = ("data.scale=none", "data.scale=minmax")
    paths = [m.plan.data.path for m in sweep(BASE, *changes, seeds="0-1").members]
    assert paths == ["there/data.h5", "there/data-2.h5"] * 2


def test_one_experiment_is_no_sweep(sweep):
    plan = sweep(BASE, "pretrain.layers=9,5", "data.range=0.1,0.9", "finetune.epochs=3")
    assert isinstance(plan, Plan)
    assert (plan.training["pretrain"].layers, plan.data.range) == ((9, 5), "0.1,0.9")


@pytest.mark.parametrize("seeds", [None, "3,1,2"])
def test_its_file_gives_the_same_sweep(sweep, tmp_path, seeds):
    text = CASES + BASE
    found = sweep(text, "pretrain.layers=9,5", "pretrain.layers=9", seeds=seeds)
    found = found.__class__(tmp_path, found.sections, found.members)
    found.write()
    again = read_sweep(tmp_path / "experiment.toml", run=Path("there"))
    assert again.members == found.members


@pytest.mark.parametrize(
    ("text", "changes", "seeds", "words"),
    [
        (BASE, (), "", ["--seeds must be whole numbers", "got ''", "0-9"]),
        (BASE, (), "3-1", ["got '3-1'"]),
        (BASE, (), "0--2", ["got '0--2'"]),
        (BASE, (), "0-99999999999", ["these are 100000000000"]),
        (BASE, (), "1,0-2", ["must be different numbers"]),
        (BASE, (), "0-99999", ["more than 1000 runs", "100000", "--yes"]),
        (BASE, ("finetune.epochs=",), None, ["must be a whole number", "got ''"]),
        (BASE, ("finetune.epochs=1,,2",), None, ["a value beside each comma"]),
        (BASE, ("finetune.epochs=1,x",), None, ["must be a whole number; got 'x'"]),
        (BASE, ("finetune.epoch=1,2",), None, ["'epoch'", "'epochs'?"]),
        (BASE, ("finetune.epochs=1,2", "finetune.epochs=2"), None, ["must differ"]),
        (BASE, ("finetune.epochs=1,-2",), None, ["[finetune]", "at least 0; got -2"]),
        (BASE, ("sparse.hidden=3,4",), None, ["Add [sparse]"]),
        (BASE, ("experiment.name=a", "experiment.name=b"), "1", ["experiment.name"]),
        (BASE, ("finetune.seed=1,2",), "0-3", ["sets those of all steps"]),
        (BASE, ("finetune.task=autoencode,classify",), None, ["measured alike"]),
        (BASE + "[sweep]\nseed = 3\n", (), None, ["'seed'", "'seeds'?"]),
        (BASE + "[sweep]\nseeds = []\n", (), None, ["[sweep] seeds", "got ''"]),
        (BASE + "[sweep]\nfinetune.epochs = 3\n", (), None, ["list", "Write [3]"]),
        (BASE + "[sweep]\nfinetune.epochs = []\n", (), None, ["at least one"]),
        (BASE + "[sweep]\ncases = 3\n", (), None, ["'cases'", "[sweep.cases.NAME]"]),
        (BASE + "[sweep.cases.'../x']\nfinetune.epochs = 3\n", (), None, ["../x"]),
        (BASE + "[sweep.cases.a]\nfinetune.epoch = 3\n", (), None, ["'epochs'?"]),
        *(
            (f"{BASE}[sweep.cases.'{name}']\nfinetune.epochs = 3\n", (), None, [words])
            for name, words in (
                ("complete", "not 'complete'"),
                ("report.html", "no ending; got 'report.html'"),
                ("data.h5", "no ending; got 'data.h5'"),
                (300 * "x", "at most 200 bytes, for folders; got xxxx"),
            )
        ),
        (CASES + BASE, ("pretrain.schedule=greedy",), None, ["lag belongs"]),
    ],
)
def test_refused(sweep, text, changes, seeds, words):
    with pytest.raises(ConfigError) as error:
        sweep(text, *changes, seeds=seeds)
    for word in words:
        assert word in str(error.value)


def test_many_may_be_meant(sweep):
    assert len(sweep(seeds="0-1000", many=True).members) == 1001


@pytest.mark.parametrize(
    ("changes", "seeds", "words"),
    [
        ((), "0-3", []),
        (("pretrain.layout=1-2:1",), "0-1", []),
        (("finetune.minibatch=5",), "0-1", ["seed-0: finetune.minibatch was 20, is 5"]),
        ((), "1-3", ["there were runs not asked for now: seed-0"]),
        (("data.validation=3",), "0-1", ["data.validation was 0, is 3"]),
    ],
)
def test_what_goes_on(sweep, changes, seeds, words):
    before, now = sweep(seeds="0-1"), sweep(BASE, *changes, seeds=seeds)
    if not words:
        check_goes_on(before, now)
        return
    with pytest.raises(ConfigError) as error:
        check_goes_on(before, now)
    for word in (*words, "--resume auto"):
        assert word in str(error.value)
