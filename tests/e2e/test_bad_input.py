"""Mistakes in data and settings: one message, exit code 2, nothing changed on disk.

What values a setting may have is in ``tests/unit/test_config.py``, mistakes in
preparing data in ``test_data.py``, those with runs in ``test_bad_runs.py``.
"""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from tests.e2e.conftest import contents, write_patches, write_pixels
from tests.support import launch

SMALL = ("--layers", "6,4", "--epochs", "1", "--minibatch", "50")
PRETRAIN = ("pretrain", "tiny.h5", "--run", "run", *SMALL)
SPARSE = ("sparse", "toy.h5", "--run", "run")


@pytest.fixture(autouse=True)
def folder(tiny, toy, tmp_path):
    """Give a folder with the small data sets."""
    shutil.copy(tiny, tmp_path / "tiny.h5")
    shutil.copy(toy, tmp_path / "toy.h5")
    return tmp_path


def named(cases):
    """Return what parametrizes a test by cases that begin with their names."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case[0])


# --- the data set


def _floats(value):
    """Return what writes floats in [0, 1], but for one."""

    def make(path):
        rng = np.random.default_rng(5)
        splits = {name: Split(rng.random((60, 9))) for name in ("train", "test")}
        write_dataset(path, splits, name="floats", origin="made up", scale=1.0)
        with h5py.File(path, "r+") as file:
            file["train/x"][41, 7] = value

    return make


def _damaged(path):
    write_pixels(path)
    with h5py.File(path) as file:
        chunk = file["train/x"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)


# What a file may be is in ``tests/unit/test_hdf5.py`` and ``data/test_dataset.py``.
BAD_DATA = {
    "missing": (lambda path: None, "found nothing there"),
    "text": (lambda path: path.write_text("1,2\n3,4\n"), "it is not an HDF5 file"),
    "damaged": (_damaged, "must be a whole HDF5 file; it cannot be read"),
    "nan": (_floats(np.nan), "row 41, column 7 is nan"),
    "above-1": (_floats(3.5), "in [0, 1]; bad.h5 has"),
    "negative": (_floats(-0.25), "--visible linear"),
}


@pytest.mark.parametrize(
    ("command", "case", "ranks"),
    [
        *(("pretrain", case, 0) for case in BAD_DATA),
        *(("sparse", case, 0) for case in ("missing", "damaged", "nan")),
        *(("encode", case, 0) for case in ("missing", "damaged")),
        *(("pretrain", case, 2) for case in ("missing", "nan")),
        ("sparse", "nan", 2),  # which one rank alone finds
    ],
)
def test_bad_data(folder, refused, run_copy, command, case, ranks):
    make, words = BAD_DATA[case]
    make(folder / "bad.h5")
    arguments = {
        "pretrain": ["pretrain", "bad.h5", "--run", "new", *SMALL],
        "sparse": ["sparse", "bad.h5", "--run", "new"],
        "encode": ["encode", "run", "bad.h5", "-o", "out.h5"],
    }[command]
    refused(["bad.h5", words], *arguments, ranks=ranks)


def test_what_a_data_set_can_be_made_of_is_answered_with_the_command(folder, refused):
    (folder / "my rows.csv").write_text("1,2\n3,4\n")
    (folder / "digits").mkdir()
    with h5py.File(folder / "scenes.h5", "w") as file:
        file["images"] = np.zeros((2, 9, 9))
    commands = {
        "my rows.csv": "mpilayer data prepare 'my rows.csv' -o 'my rows.h5'",
        "digits": "mpilayer data prepare digits -o digits.h5",
        "scenes.h5": "mpilayer data patches scenes.h5 -o patches.h5",
    }
    for name, command in commands.items():
        refused([name, command], "pretrain", name, "--run", "run", *SMALL)


def test_data_outside_0_to_1_are_welcome_to_linear_units(folder, refused):
    _floats(3.5)(folder / "floats.h5")
    arguments = ["pretrain", "floats.h5", "--run", "run", *SMALL, "--visible", "linear"]
    launch.run(*arguments, "--learning-rate", 0.01, cwd=folder).ok()
    refused(["cross entropy", "linear"], "finetune", "run", "--loss", "cross-entropy")


# --- options


@named(
    [
        ("--layers 10,0", "layers must be at least 1; got 0. Change --layers"),
        ("--layers -5", "layers must be at least 1; got -5"),
        ("--layers 10,many", "--layers", "list of numbers", "'10,many'"),
        ("--layers 10,,5", "--layers", "list of numbers"),
        ("--layers 2.5", "--layers", "list of numbers"),
        ("--epochs 1,2,3", "epochs needs one number", "2 layers; got 3"),
        ("--lag -1", "lag must be at least 0; got -1"),
        ("--minibatch 231", "got 231 with 230 training rows", "--minibatch"),
        ("--schedule locstep", "lockstep, async, greedy", "'lockstep'?"),
        ("--schedule greedy:x", "unknown schedule", "greedy"),
        ("--hidden sigmiod", "unknown hidden", "sigmoid, tanh, relu, linear"),
        ("--hidden tanh", "RBM", "sigmoid", "linear"),
        ("--end never", "unknown end", "all, first-layer"),
        (
            "--method autoencoder --loss cross-entropy --hidden relu",
            *("cross entropy", "sigmoid"),
        ),
        ("--layrs 4", "--layrs 4. Did you mean --layers?", "--help"),
        ("--epoch 3", "arguments: --epoch 3. Did you mean --epochs?"),
        ("--monitor=3", "--monitor=3. Did you mean --monitor-rows?"),
        ("--zzz", "unrecognized arguments: --zzz. See"),
        ("-epochs 3", "unrecognized arguments: -epochs 3. See"),
        ("--epochs", "--epochs", "expected one argument"),
        ("--threads -1", "--threads", "0 or more; got '-1'"),
        ("--threads two", "--threads", "'two'"),
        ("--run " + "x" * 300, "too long"),
        ("--config " + "x" * 300, "too long"),
        ("--config none.toml", "none.toml must be a readable file", "Give another"),
    ]
)
def test_options_of_pretraining(refused, case):
    options, *words = case
    refused(words, *PRETRAIN, *options.split())


@named(
    [
        ("--sparsity-target 1.5", "less than 1; got 1.5", "--sparsity-target"),
        ("--preset papper", "unknown preset", "paper, ufldl", "'paper'?"),
        ("--output sigmoid", "data in [0, 1]", "--output tanh or linear"),
        (
            "--optimizer sgd --minibatch 30 --measure-every 20",
            *("at least the rows of a minibatch, 30; got 20", "--measure-every"),
        ),
        ("--optimizer sgd --minibatch 301", "got 301 with 300 training rows"),
        ("--shards -1", "shards must be at least 0; got -1", "--shards"),
        ("--shards 301", "got 301 shards with 300 training rows", "at most 300"),
        ("--kl exact --shards 2", "--shards belongs to --kl average; got 2", "exact"),
        ("--run " + "x" * 300, "too long"),
    ]
)
def test_options_of_sparse_training(refused, case):
    options, *words = case
    refused(words, *SPARSE, *options.split())


@named(
    [
        ("--optimizer lbfgs", "unknown optimizer", "sgd, momentum, adam"),
        ("--learning-rate -1", "learning_rate must be at least 0", "--learning-rate"),
        ("--minibatch 231", "231 with 230 training rows", "--minibatch"),
        ("--momentum 0.9", "unrecognized arguments: --momentum"),
        ("--config none.toml", "none.toml must be a readable file"),
    ]
)
def test_options_of_fine_tuning(refused, run_copy, case):
    options, *words = case
    refused(words, "finetune", "run", *options.split())


@named(
    [
        ("pretrain tiny.h5", "--run"),
        ("pretrain --run run", "DATA.h5"),
        ("evaluate", "DIR"),
        ("evaluate " + "x" * 300, "too long"),
        ("config -o " + "x" * 300, "too long"),
        ("pretrain " + "x" * 300 + " --run run", "too long"),
        ("data prepare tiny.h5 -o " + "x" * 300 + ".h5", "too long"),
    ]
)
def test_arguments(refused, case):
    command, words = case
    refused(words, *command.split())


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", "many"),  # found by the parser
        ("--layers", "6,0"),  # by the settings
        ("--run", "file/run"),  # by rank 0
    ],
    ids=lambda options: options[0],
)
def test_what_all_ranks_find_is_told_once(folder, refused, options):
    (folder / "file").write_text("precious")
    words = {"--run": ["can be written", "another folder"]}
    refused(words.get(options[0], options[0]), *PRETRAIN, *options, ranks=2)


# --- files of settings


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        (PRETRAIN, "[pretrain]\nlayrs = [4]", ["'layrs'. Did you mean 'layers'?"]),
        (PRETRAIN, "[pretrain]\nzzz = 4", ["[pretrain]: unknown key 'zzz'; choose"]),
        (PRETRAIN, "[pretrain]\nlayers = [4", ["config.toml must be TOML"]),
        (PRETRAIN[:4], "[pretrain]\nlayers = [4, 0]", ["layers must be at least 1"]),
        (PRETRAIN[:4], "[pretrain]\nlayers = 'many'", ["of type int", "whole number"]),
        (PRETRAIN, "pretrain = 4", ["pretrain must be a table"]),
        (SPARSE, "[sparse]\npreset = 3", ["preset must be of type str; got 3"]),
        (SPARSE, "[spars]\nhidden = 3", ["unknown section 'spars'", "'sparse'?"]),
    ],
)
def test_configuration_files(folder, refused, command, text, words):
    (folder / "config.toml").write_text(text)
    refused(["config.toml", *words], *command, "--config", "config.toml")


def test_a_bad_value_is_told_in_the_words_of_its_place(folder, refused):
    (folder / "config.toml").write_text("[pretrain]\nepochs = 0\nminibatch = 0")
    arguments = [*PRETRAIN[:4], "--config", "config.toml"]
    words = " epochs must be at least 1; got -3. Change --epochs."
    refused(words, *arguments, "--epochs", "-3")
    words = "config.toml, [pretrain]: epochs must be at least 1; got 0. Change epochs."
    refused(words, *arguments)
    refused("[pretrain]: minibatch must be", *arguments, "--epochs", "3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["must be a readable file", "Give another one", "mpilayer config"]),
        ("[pretrain]\nepochs = 0", ["[pretrain]: epochs must", "Change epochs."]),
        ("[pretrain]\nepochs = 'x'", ["epochs must be", "Give a whole number."]),
    ],
)
def test_files_of_experiments(folder, text, words):
    if text is not None:
        (folder / "mine.toml").write_text(f"[data]\npath = 'tiny.h5'\n{text}")
    result = launch.run("run", "mine.toml", cwd=folder)
    launch.assert_user_error(result, "mine.toml", *words)
    assert "--" not in result.stderr


def _edited(**changes):
    def make(path, original):
        path.write_text(json.dumps(json.loads(original.read_text()) | changes))

    return make


BAD_SCHEDULES = {
    "missing": (lambda path, original: None, "is not a file"),
    "folder": (lambda path, original: path.mkdir(), "is not a file"),
    "binary": (lambda path, original: path.write_bytes(b"\xff\xfe\0"), "schedule.json"),
    "other": (lambda path, original: path.write_text("{}"), "format_version"),
    "layers": (_edited(used=[[0], [1]], stipulated=[1, 1]), "has 2, --layers 4"),
    "future": (_edited(used=[[0], [2], [1], [1]]), "epoch 1 asks for 2"),
}


@pytest.mark.parametrize("case", BAD_SCHEDULES)
def test_replays(folder, refused, pretrained, case):
    """What a table may be is in ``tests/unit/train/test_schedule.py``."""
    make, words = BAD_SCHEDULES[case]
    make(folder / "table.json", pretrained / "schedule.json")
    arguments = ["pretrain", "tiny.h5", "--run", "run", "--layers", "14,10,8,4"]
    refused(words, *arguments, "--schedule", "replay:table.json")


# --- ranks and launchers


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (PRETRAIN, ["3 ranks for 2 layers", "at most 2 ranks"]),
        (
            ["encode", "run", "tiny.h5", "-o", "out.h5"],
            ["one process", "3", "without mpiexec"],
        ),
    ],
    ids=["pretrain", "encode"],
)
def test_too_many_ranks(refused, command, words):
    refused(words, *command, ranks=3)


LAUNCHERS = {
    "pmi": ({"PMI_SIZE": "4"}, "PMI_RANK", ["mpiexec"]),
    "slurm": (
        {"SLURM_STEP_NUM_TASKS": "4"},
        "SLURM_PROCID",
        ["srun --mpi=pmi2", "mpiexec"],
    ),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_gave_every_process_its_own_world(folder, refused, name):
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("Open MPI takes these variables for its own launcher's")
    variables, rank, words = LAUNCHERS[name]
    words = ["launcher started 4 processes", "joined 1", "alone", "Start it", *words]
    refused(words, *PRETRAIN, variables=variables | {rank: "0"})
    before = contents(folder)
    other = launch.run(*PRETRAIN, cwd=folder, variables=variables | {rank: "2"})
    assert (other.code, other.stdout, other.stderr) == (2, "", "")
    assert contents(folder) == before


# --- costs that are no numbers


def test_a_first_cost_that_is_infinite(folder, refused):
    def shift(x):
        x[:] = x[:] - 1e3

    write_patches(folder / "far.h5", change=shift)
    for command in ("sparse", "compare"):
        # The next try may have the same name.
        words = ["first cost must be finite", "scale the data"]
        arguments = [command, "far.h5", "--run", "run", "--output", "linear"]
        refused(words, *arguments, ranks=2 * (command == "compare"))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_folder(folder, refused):
    (folder / "closed").mkdir(mode=0o500)
    refused(["can be written", "permissions"], *PRETRAIN, "--run", "closed/run")
