"""The plan of an experiment: sections, overrides, steps, what does not go together."""

from pathlib import Path

import pytest

from mpilayer.config import read_experiment
from mpilayer.errors import ConfigError
from mpilayer.runs.experiment import plan_of
from mpilayer.sweep.plan import read_sweep

EXAMPLES = Path(__file__).parents[3] / "examples"
DEEP = "[data]\npath = 'x.h5'\n[pretrain]\nlayers = [5, 2]\n[finetune]\nepochs = 2\n"


@pytest.fixture
def plan(tmp_path):
    """Give a reader of text."""

    def read(text, *changes, run=None):
        path = tmp_path / "try.toml"
        path.write_text(text)
        return read_sweep(path, changes, run=run)

    return read


@pytest.mark.parametrize(
    ("text", "changes", "steps"),
    [
        (DEEP, (), "data pretrain finetune evaluate report"),
        (DEEP, ("experiment.steps=evaluate,pretrain",), "data pretrain evaluate"),
        (
            "[data]\npath = 'x.h5'\n[sparse]\n[compare]\n",
            (),
            "data sparse compare evaluate report",
        ),
    ],
)
def test_sections_decide_the_steps(plan, text, changes, steps):
    assert plan(text, *changes).steps == tuple(steps.split())


def test_names_and_places(plan):
    found = plan(DEEP)
    assert found.experiment.name == "try"
    assert found.path == Path("runs/try")
    assert found.folder("pretrain") == found.folder("finetune") == found.path / "deep"
    assert plan(DEEP, run=Path("there")).path == Path("there")
    made = plan("[data]\nsource = 'a.mat'\n[sparse]\n", run=Path("there"))
    assert made.data_path == Path("there/data.h5")


def test_overrides_of_every_type(plan):
    found = plan(
        DEEP,
        "finetune.epochs=3",
        "pretrain.learning_rate=0.1,0.2",
        "pretrain.cut_short=false",
        "experiment.name=other",
        "data.path = y.h5",
    )
    assert found.training["finetune"].epochs == 3
    assert found.training["pretrain"].learning_rate == (0.1, 0.2)
    assert found.training["pretrain"].cut_short is False
    assert (found.path, found.data_path) == (Path("runs/other"), Path("y.h5"))


def test_compare_goes_on_from_sparse(plan):
    text = "[data]\npath = 'x.h5'\n[sparse]\nhidden = 7\nevaluations = 9\n[compare]\n"
    compared = plan(text + "evaluations = 5\n", "sparse.corrections=40")
    found = compared.training["compare"]
    assert (found.hidden, found.evaluations, found.corrections) == (7, 5, 40)


def test_effective_settings_read_back(plan, tmp_path):
    first = plan(DEEP, "finetune.epochs=3", run=tmp_path)
    first.write()
    assert read_sweep(tmp_path / "experiment.toml") == first


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_examples_are_legal(path):
    assert len(plan_of(path, read_experiment(path)).steps) >= 4


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        ("[pretrian]\n", "", ["unknown section 'pretrian'", "'pretrain'?"]),
        ("[launch]\n", "", ["unknown section 'launch'"]),
        (DEEP + "epoch = 2\n", "", ["[finetune]", "unknown key 'epoch'"]),
        ("[data]\nsize = 0\n", "", ["[data]", "size must be at least 1; got 0"]),
        ("[data]\npath = 'x.h5'\n", "", ["must train something", "pretrain"]),
        ("[pretrain]\n", "", ["must say path, source or both"]),
        ("[data]\npath = 'x'\n[finetune]\n", "", ["finetune needs pretrain before"]),
        (DEEP, "finetune.epochs", ["needs SECTION.KEY=VALUE"]),
        (DEEP, "tune.epochs=3", ["unknown section 'tune'"]),
        (DEEP, "finetune.epoch=3", ["unknown key 'epoch'"]),
        (DEEP, "finetune.layers=3", ["unknown key 'layers'", "in [pretrain]"]),
        (DEEP + "layers = [3]\n", "", ["[finetune]", "it belongs in [pretrain]"]),
        ("layers = [3]\n" + DEEP, "", ["key 'layers' must", "Write it below [pret"]),
        (DEEP.replace("[5, 2]", "'5,2'"), "", ["[pretrain]", "Write [5, 2]"]),
        (DEEP, "finetune.epochs=x", ["epochs must be a whole number; got 'x'"]),
        (DEEP, "pretrain.cut_short=1", ["must be true or false; got '1'"]),
        (DEEP, "pretrain.epochs=1,2,3", ["[pretrain]", "2 layers; got 3"]),
        (DEEP, "experiment.steps=pretrain,sparse", ["needs the section [sparse]"]),
        (DEEP, "experiment.steps=auto,pretrain", ["must be auto alone"]),
        (DEEP, "experiment.steps=dance", ["unknown steps 'dance'"]),
        (DEEP, "data.range=1,0", ["LOW below HIGH"]),
        (DEEP, "report.file=a/b.html", ["new name beside the results"]),
        (DEEP, "report.file=deep", ["new name beside the results"]),
        (DEEP, "report.file=r.txt", ["ends in .html or .htm", "r.txt"]),
    ],
)
def test_what_is_refused(plan, text, change, words):
    with pytest.raises(ConfigError) as refused:
        plan(text, *([change] if change else []))
    for word in words:
        assert word in str(refused.value)
