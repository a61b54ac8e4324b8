"""``mpilayer plan``, and ``job --time auto``, as users call them."""

import json
import re

import pytest

from tests.support.command import call, found, refuse, said, told
from tests.support.small import write_patches, write_pixels

SMALL = "--layers 128,64 --epochs 2 --minibatch 20"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan")
    write_pixels(path / "data.h5")
    write_patches(path / "patches.h5")
    measured = found(path, f"plan pretrain data.h5 {SMALL} --ranks 1,2")
    (path / "plan.json").write_text(json.dumps(measured))
    measured["measured"]["curves"] = {}
    (path / "less.json").write_text(json.dumps(measured))
    return path


def test_a_row_for_every_number_of_ranks(folder):
    line = f"plan pretrain data.h5 {SMALL} --measured plan.json"
    text = said(folder, f"{line} --ranks 1,2,500")
    assert max(map(len, text.splitlines())) <= 80
    joined = " ".join(text.split())
    for words in (
        "1:1 2:1",
        "1-2:2",
        "fastest: ",
        "--time 00:05:00",
        "at most 3 ranks",
    ):
        assert words in joined
    many = found(folder, f"{line} --ranks 2 --hosts 2 --cluster slingshot-11")
    assert [plan["hosts"] for plan in many["plans"]] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "finetune data.h5 --layers 128,64 --minibatch 20 --epochs 1",
        "finetune data.h5 --layers 64 --minibatch 20 --task classify",
        "sparse patches.h5 --evaluations 20",
        "sparse patches.h5 --optimizer sgd --kl exact --measure-every 100",
        "pretrain data.h5 --layers 64,64 --schedule async --method autoencoder",
    ],
)
def test_all_trainings_are_measured(folder, line):
    plans = found(folder, f"plan {line} --ranks 1")["plans"]
    assert [plan["ranks"] for plan in plans] == [1]
    assert plans[0]["seconds"] > 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["COMMAND must come first"]),
        ("evaluate data.h5", ["choose from pretrain, finetune, sparse"]),
        ("pretrain data.h5 --cluster myrinet", ["slingshot-11", "ethernet-1"]),
        ("pretrain data.h5 --links data.h5", ["--links must be", "doctor --json"]),
        ("pretrain data.h5 --ranks 0", ["from 1 to 100000; got 0 and 1"]),
        ("pretrain data.h5 --ranks 1000000000", ["from 1 to 100000"]),
        ("pretrain data.h5 --measured plan.json", ["layers [128, 64], now [1000"]),
        (
            f"pretrain patches.h5 {SMALL} --measured plan.json",
            ["n_visible 20, found 16", "again"],
        ),
        ("sparse patches.h5 --measured plan.json", ["must be of sparse"]),
        (
            f"pretrain data.h5 {SMALL} --measured less.json",
            ["plan --json", "no piece 'step 20-128 sigmoid sigmoid'"],
        ),
        (
            f"pretrain data.h5 {SMALL} --measured plan.json --ranks 90,91",
            ["number that can train. 90 ranks: ", " 91 ranks: ", "Start at most"],
        ),
        ("pretrain missing.h5", ["missing.h5"]),
    ],
)
def test_bad_input_is_refused_in_words(folder, line, words):
    refuse(folder, f"plan {line}", *words)


def test_a_job_gets_its_limit_of_time(folder, tmp_path):
    script = tmp_path / "job.sh"
    line = f"job pretrain data.h5 --run r {SMALL} --ntasks 2 --time auto -o {script}"
    assert "pretrain 00:05:00" in told(folder, line)
    assert "#SBATCH --time=00:05:00" in script.read_text()
    chain = f"{line} --then finetune,evaluate".replace(str(script), str(tmp_path / "c"))
    call(folder, chain).ok()
    for name in ("finetune", "evaluate"):
        text = (tmp_path / "c" / f"{name}.sh").read_text()
        assert re.search(r"--time=00:\d\d:00", text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("job sparse missing.h5 --run r", "there is no missing.h5"),
        ("job finetune data.h5 --run missing", "there is no missing"),
        (f"job pretrain data.h5 --run r {SMALL} --ntasks 500", "at most 3 ranks"),
    ],
)
def test_no_limit_without_data_or_for_idle_ranks(folder, line, words):
    refuse(folder, f"{line} --time auto -o job.sh", words)
