"""Every mistake of a user: one message, exit code 2, nothing changed on disk.

Those in preparing data are in ``test_data.py``.
"""

import json
import math
import os
import shutil

import h5py
import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.data import dataset
from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from tests.e2e.conftest import contents, write_pixels
from tests.support import launch

SMALL = ("--layers", "6,4", "--epochs", "1", "--minibatch", "50")


@pytest.fixture
def folder(tiny, tmp_path):
    """Give a folder with the small data set as ``tiny.h5``."""
    shutil.copy(tiny, tmp_path / "tiny.h5")
    return tmp_path


@pytest.fixture
def refused(folder):
    """Give a function that demands a refusal which leaves the folder as it was."""

    def check(words, *arguments, ranks=0, variables=None):
        before = contents(folder)
        result = launch.run(*arguments, ranks=ranks, cwd=folder, variables=variables)
        words = [words] if isinstance(words, str) else words
        launch.assert_user_error(result, *words)
        assert result.stdout == ""
        assert contents(folder) == before

    return check


def write_floats(path, change):
    """Write a float data set, then change its training rows behind its back."""
    rng = np.random.default_rng(5)
    splits = {name: Split(rng.random((60, 9))) for name in ("train", "test")}
    write_dataset(path, splits, name="floats", origin="made up", scale=1.0)
    with h5py.File(path, "r+") as file:
        change(file["train/x"])


# --- the data set


def _set(value):
    def change(x):
        x[41, 7] = value

    return change


def _other_kind(path):
    with hdf5.create(path, kind="mpilayer-checkpoint", version=1):
        pass


def _foreign(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


def _newer(path):
    with hdf5.create(path, kind=dataset.KIND, version=dataset.FORMAT_VERSION + 1):
        pass


def _no_train(path):
    with hdf5.create(path, kind=dataset.KIND, version=dataset.FORMAT_VERSION):
        pass


def _truncated(path):
    write_pixels(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _damaged(path):
    write_pixels(path)
    with h5py.File(path) as file:
        chunk = file["train/x"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)


BAD_DATA = {
    "missing": (lambda path: None, "found nothing there"),
    "folder": (lambda path: path.mkdir(), "found a folder there"),
    "text": (lambda path: path.write_text("1,2\n3,4\n"), "it is not an HDF5 file"),
    "empty": (lambda path: path.touch(), "must be a whole HDF5 file; it is empty"),
    "other-kind": (_other_kind, "found 'mpilayer-checkpoint'"),
    "foreign": (_foreign, "a file of another program"),
    "newer": (_newer, "format version 1 to 2; found 3"),
    "no-train": (_no_train, "must have a group 'train'"),
    "truncated": (_truncated, "truncated"),
    "damaged": (_damaged, "must be a whole HDF5 file; it cannot be read"),
    "nan": (lambda path: write_floats(path, _set(np.nan)), "row 41, column 7 is nan"),
    "infinite": (lambda path: write_floats(path, _set(-np.inf)), "column 7 is -inf"),
    "above-1": (lambda path: write_floats(path, _set(3.5)), "in [0, 1]; bad.h5 has"),
    "negative": (lambda path: write_floats(path, _set(-0.25)), "--visible linear"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(folder, refused, case):
    make, words = BAD_DATA[case]
    make(folder / "bad.h5")
    refused(["bad.h5", words], "pretrain", "bad.h5", "--run", "run", *SMALL)


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


@pytest.mark.parametrize("case", ["missing", "truncated", "nan", "above-1"])
def test_bad_data_is_reported_once_by_several_ranks(folder, refused, case):
    make, words = BAD_DATA[case]
    make(folder / "bad.h5")
    arguments = ["pretrain", "bad.h5", "--run", "run", "--layers", "9,6,4"]
    refused(["bad.h5", words], *arguments, "--minibatch", 50, ranks=3)


def test_data_outside_0_to_1_are_welcome_to_linear_units(folder):
    write_floats(folder / "floats.h5", _set(3.5))
    arguments = ["pretrain", "floats.h5", "--run", "run", *SMALL, "--visible", "linear"]
    launch.run(*arguments, "--learning-rate", 0.01, cwd=folder).ok()


# --- options of pre-training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "10,0"], ["layers must be at least 1; got 0", "--layers"]),
        (["--layers", "-5"], ["layers must be at least 1; got -5"]),
        (["--layers", "10,many"], ["--layers", "list of numbers", "'10,many'"]),
        (["--layers", "10,,5"], ["--layers", "list of numbers"]),
        (["--layers", "2.5"], ["--layers", "list of numbers"]),
        (["--epochs", "0"], ["epochs must be at least 1; got 0"]),
        (["--epochs", "1,2,3"], ["epochs needs one number", "2 layers; got 3"]),
        (["--extra-epochs", "1,2,3"], ["extra_epochs needs one number", "got 3"]),
        (["--learning-rate", "1,2,3"], ["learning_rate needs one", "got 3"]),
        (["--learning-rate", "0"], ["learning_rate must be greater than 0"]),
        (["--learning-rate", "nan"], ["learning_rate must be greater than 0"]),
        (["--lag", "1,2"], ["lag needs one number", "got 2"]),
        (["--lag", "-1"], ["lag must be at least 0; got -1"]),
        (["--momentum", "0.5"], ["momentum needs two numbers"]),
        (["--momentum", "0.5,1.0"], ["momentum must be less than 1"]),
        (["--minibatch", "0"], ["minibatch must be at least 1"]),
        (["--minibatch", "231"], ["got 231 with 230 training rows", "--minibatch"]),
        (["--cd-steps", "0"], ["cd_steps must be at least 1"]),
        (["--seed", "-1"], ["seed must be at least 0"]),
        (["--schedule", "locstep"], ["lockstep, async, greedy", "'lockstep'?"]),
        (["--schedule", "replay"], ["unknown schedule", "replay:FILE"]),
        (["--schedule", "greedy:x"], ["unknown schedule", "greedy"]),
        (["--method", "vae"], ["unknown method 'vae'; choose from rbm, autoencoder"]),
        (["--hidden", "sigmiod"], ["unknown hidden", "sigmoid, tanh, relu, linear"]),
        (["--visible", "gauss"], ["unknown visible", "sigmoid, tanh, relu, linear"]),
        (["--code", "none"], ["unknown code", "sigmoid, tanh, relu, linear"]),
        (["--hidden", "tanh"], ["RBM", "sigmoid", "linear"]),
        (["--loss", "l1"], ["unknown loss", "squared, cross-entropy"]),
        (["--end", "never"], ["unknown end", "all, first-layer"]),
        (["--layrs", "4"], ["--layrs 4. Did you mean --layers?", "--help"]),
        (["--epoch", "3"], ["arguments: --epoch 3. Did you mean --epochs?"]),
        (["--monitor=3"], ["--monitor=3. Did you mean --monitor-rows?"]),
        (["--zzz"], ["unrecognized arguments: --zzz. See"]),
        (["-epochs", "3"], ["unrecognized arguments: -epochs 3. See"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--threads", "-1"], ["--threads", "0 or more; got '-1'"]),
        (["--threads", "two"], ["--threads", "'two'"]),
    ],
    ids=lambda value: "_".join(value) if value[0].startswith("--") else "",
)
def test_bad_options(refused, options, words):
    refused(words, "pretrain", "tiny.h5", "--run", "run", *SMALL, *options)


def test_missing_arguments(refused):
    refused("--run", "pretrain", "tiny.h5")
    refused("DATA.h5", "pretrain", "--run", "run")
    refused("DIR", "evaluate")


@pytest.mark.parametrize(
    "options",
    [["--layers", "6,0"], ["--epochs", "many"], ["--schedule", "locstep"]],
    ids=lambda options: options[0],
)
def test_bad_options_are_reported_once_by_several_ranks(refused, options):
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL, *options]
    refused(options[0].strip("-"), *arguments, ranks=2)


def test_cross_entropy_needs_units_between_0_and_1(refused):
    options = ["--method", "autoencoder", "--loss", "cross-entropy"]
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL, *options]
    refused(["cross entropy", "sigmoid"], *arguments, "--hidden", "relu")


# --- the configuration file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[pretrain]\nlayrs = [4]", ["unknown key 'layrs'. Did you mean 'layers'?"]),
        ("[pretrain]\nzzz = [4]", ["[pretrain]: unknown key 'zzz'; choose", "epochs"]),
        ("[pretrain]\nlayers = [4", ["config.toml must be TOML"]),
        ("[pretrain]\nlayers = [4, 0]", ["layers must be at least 1"]),
        ("[pretrain]\nlayers = 'many'", ["layers must be of type int", "whole number"]),
        ("[pretrain]\nlayers = []", ["layers must be a list of numbers"]),
        ("[pretrain]\ntied = 1", ["tied must be of type bool"]),
        ("[pretrain]\nschedule = 'all'", ["unknown schedule", "lockstep"]),
        ("pretrain = 4", ["pretrain must be a table"]),
    ],
)
def test_bad_configuration_files(folder, refused, text, words):
    (folder / "config.toml").write_text(text)
    arguments = ["pretrain", "tiny.h5", "--run", "run", "--config", "config.toml"]
    refused(["config.toml", *words], *arguments)


def test_a_bad_value_is_told_in_the_words_of_its_place(folder, refused):
    (folder / "config.toml").write_text("[pretrain]\nepochs = 0\nminibatch = 0")
    arguments = ["pretrain", "tiny.h5", "--run", "run", "--config", "config.toml"]
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
def test_bad_files_of_experiments(folder, text, words):
    if text is not None:
        (folder / "mine.toml").write_text(f"[data]\npath = 'tiny.h5'\n{text}")
    result = launch.run("run", "mine.toml", cwd=folder)
    launch.assert_user_error(result, "mine.toml", *words)
    assert "--" not in result.stderr


def test_a_missing_configuration_file(refused):
    arguments = ["pretrain", "tiny.h5", "--run", "run", "--config", "none.toml"]
    refused(["none.toml must be a readable file", "Give another"], *arguments)


# --- the run directory


def test_an_existing_run_is_kept_unless_replaced(folder, refused, run_copy):
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL]
    words = ["run holds a run already", "--replace", "another name"]
    refused(words, *arguments)
    refused(words, *arguments, ranks=2)
    launch.run(*arguments, "--replace", cwd=folder).ok()
    assert not (run_copy / "checkpoints" / "layer-3.h5").exists()
    lines = (run_copy / "metrics" / "layer-1.jsonl").read_text().splitlines()
    assert len(lines) == 1


def test_a_failed_replacement_leaves_the_old_run(folder, refused, run_copy):
    BAD_DATA["nan"][0](folder / "bad.h5")
    arguments = ["pretrain", "bad.h5", "--run", "run", *SMALL, "--replace"]
    refused("is nan", *arguments)


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_a_folder_with_other_files_is_refused(folder, refused, run_copy, options):
    (run_copy / "thesis.tex").write_text("precious")
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL, *options]
    refused(["holds other files (thesis.tex)", "another name"], *arguments)
    (folder / "other").mkdir()
    (folder / "other" / "metrics").write_text("precious")
    refused("holds other files", *arguments, "--run", "other")


def test_an_empty_folder_is_welcome(folder):
    (folder / "empty").mkdir()
    arguments = ["pretrain", "tiny.h5", "--run", "empty", *SMALL]
    launch.run(*arguments, cwd=folder).ok()


def test_a_run_path_that_is_a_file(folder, refused):
    (folder / "file").write_text("precious")
    for options in ([], ["--replace"]):
        arguments = ["pretrain", "tiny.h5", "--run", "file", *SMALL, *options]
        refused(["--run must name a folder", "file is a file"], *arguments)
    # Not even root can write below a file.
    arguments = ["pretrain", "tiny.h5", "--run", "file/run", *SMALL]
    refused(["can be written", "another folder"], *arguments)
    refused(["can be written", "another folder"], *arguments, ranks=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_folder(folder, refused):
    (folder / "closed").mkdir(mode=0o500)
    arguments = ["pretrain", "tiny.h5", "--run", "closed/run", *SMALL]
    refused(["can be written", "permissions"], *arguments)


# --- ranks and launchers


def test_more_ranks_than_layers(refused):
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL]
    refused(["3 ranks for 2 layers", "at most 2 ranks"], *arguments, ranks=3)


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_commands_of_one_process(refused, run_copy, command):
    arguments = [command, "run", "tiny.h5", "-o", "out.h5"]
    refused(["one process", "2", "without mpiexec"], *arguments, ranks=2)


LAUNCHERS = {
    "pmi": {"PMI_SIZE": "4", "PMI_RANK": "{rank}"},
    "slurm": {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "{rank}"},
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_gave_every_process_its_own_world(folder, refused, name):
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("Open MPI takes these variables for its own launcher's")
    words = ["launcher started 4 processes", "joined 1", "alone", "Start it with"]
    words += ["mpiexec"] if name == "pmi" else ["srun --mpi=pmi2", "mpiexec"]
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL]

    def variables(rank):
        return {k: v.format(rank=rank) for k, v in LAUNCHERS[name].items()}

    refused(words, *arguments, variables=variables(0))
    before = contents(folder)
    other = launch.run(*arguments, cwd=folder, variables=variables(2))
    assert (other.code, other.stdout, other.stderr) == (2, "", "")
    assert contents(folder) == before


# --- names


TOO_LONG = "x" * 300
LONG = [
    ["pretrain", "tiny.h5", "--run", TOO_LONG, "--layers", "8,4"],
    ["pretrain", f"{TOO_LONG}.h5", "--run", "run", "--layers", "8,4"],
    ["pretrain", "tiny.h5", "--run", "run", "--layers", "8,4", "--config", TOO_LONG],
    ["sparse", "tiny.h5", "--run", TOO_LONG],
    ["evaluate", TOO_LONG],
    ["config", "-o", TOO_LONG],
    ["data", "prepare", "tiny.h5", "-o", f"{TOO_LONG}.h5"],
]


@pytest.mark.parametrize("arguments", LONG, ids=" ".join)
def test_names_that_are_too_long(folder, arguments):
    for ranks in (0, 2) if arguments[0] in ("pretrain", "sparse") else (0,):
        done = launch.run(*arguments, cwd=folder, ranks=ranks)
        assert done.code == 2, done
        assert done.stderr.count("mpilayer: error:") == 1, done
        assert "Traceback" not in done.stderr
        assert "too long" in done.stderr
        assert not list(folder.rglob("config.toml"))


# --- replays


def _edited(**changes):
    def make(path, original):
        path.write_text(json.dumps(json.loads(original.read_text()) | changes))

    return make


BAD_SCHEDULES = {
    "missing": (lambda path, original: None, "is not a file"),
    "folder": (lambda path, original: path.mkdir(), "is not a file"),
    "text": (lambda path, original: path.write_text("lockstep"), "schedule.json"),
    "binary": (lambda path, original: path.write_bytes(b"\xff\xfe\0"), "schedule.json"),
    "list": (lambda path, original: path.write_text("[1, 2]"), "schedule.json"),
    "other": (lambda path, original: path.write_text("{}"), "format_version"),
    "newer": (_edited(format_version=2), "format version 1; found 2"),
    "layers": (_edited(used=[[0], [1]], stipulated=[1, 1]), "has 2, --layers 4"),
    "future": (_edited(used=[[0], [2], [1], [1]]), "epoch 1 asks for 2"),
    "texts": (_edited(used=[["123"]] * 4), "a list of whole numbers"),
    "nothing": (_edited(used=[[]] * 4), "layer 1 must do its own"),
    "less than nothing": (
        _edited(stipulated=[-3, 99, 1, 1]),
        "must be 0 or more, and layer 1",
    ),
    "endless": (_edited(virtual_end=[1, 1, 1, math.inf]), "times finite"),
    "deep": (lambda path, original: path.write_text("[" * 99999), "RecursionError"),
    "back": (_edited(used=[[0] * 3, [3, 1], [2], [1]]), "goes back"),
}


@pytest.mark.parametrize("case", BAD_SCHEDULES)
def test_bad_replays(folder, refused, pretrained, case):
    make, words = BAD_SCHEDULES[case]
    make(folder / "table.json", pretrained / "schedule.json")
    arguments = ["pretrain", "tiny.h5", "--run", "run", "--layers", "14,10,8,4"]
    refused(words, *arguments, "--schedule", "replay:table.json")


# --- using a run


USES = {
    "finetune": ["finetune", "run"],
    "evaluate": ["evaluate", "run"],
    "encode": ["encode", "run", "tiny.h5", "-o", "out.h5"],
    "reconstruct": ["reconstruct", "run", "tiny.h5", "-o", "out.h5"],
}


@pytest.mark.parametrize("command", USES)
def test_a_directory_that_is_no_run(folder, refused, command):
    words = ["run must be the directory of a run", "mpilayer pretrain"]
    refused(words, *USES[command])
    (folder / "run").mkdir()
    refused(words, *USES[command])


@pytest.mark.parametrize("command", USES)
def test_a_damaged_checkpoint(refused, run_copy, command):
    path = run_copy / "checkpoints" / "layer-2.h5"
    with h5py.File(path) as file:
        offset = file["parameters/weights"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    refused(["layer-2.h5", "damaged"], *USES[command])


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_lost_checkpoint_on_several_ranks(refused, run_copy, command, damage):
    path = run_copy / "checkpoints" / "layer-3.h5"
    if damage == "missing":
        path.unlink()
        words = "layer 3 has no checkpoint"
    else:
        path.write_bytes(path.read_bytes()[:3000])
        words = "layer-3.h5 must be a whole HDF5 file"
    refused(words, *USES[command], ranks=2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.toml", "[pretrain"),
        ("config.toml", "[data]\nn_visible = 20"),
    ],
)
def test_a_damaged_run_directory(refused, run_copy, name, text):
    (run_copy / name).write_text(text)
    refused([name, "must"], "finetune", "run")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_summary_is_made_again(folder, run_copy, text):
    expected = json.loads((run_copy / "summary.json").read_text())["test_error"]
    (run_copy / "summary.json").write_text(text)
    result = launch.run("finetune", "run", cwd=folder)
    launch.assert_user_error(result, "mpilayer resume run")
    assert "summary.json must be as it was written" in result.stderr
    launch.run("resume", "run", cwd=folder).ok()
    assert json.loads((run_copy / "summary.json").read_text())["test_error"] == expected


def test_a_checkpoint_of_another_run(folder, refused, run_copy):
    checkpoints = run_copy / "checkpoints"
    shutil.copy(checkpoints / "layer-1.h5", checkpoints / "layer-2.h5")
    refused(["layer-2.h5", "another configuration"], "finetune", "run")


def test_a_fine_tuned_run(folder, refused, run_copy):
    launch.run("finetune", "run", "--epochs", 1, cwd=folder).ok()
    words = ["run must not be fine-tuned yet", "--replace"]
    refused(words, "finetune", "run", "--epochs", 1)
    refused(words, "finetune", "run", "--epochs", 1, ranks=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--optimizer", "lbfgs"], ["unknown optimizer", "sgd, momentum, adam"]),
        (["--loss", "l1"], ["unknown loss", "squared, cross-entropy"]),
        (["--epochs", "-1"], ["epochs must be at least 0"]),
        (["--learning-rate", "-1"], ["learning_rate must be at least 0"]),
        (["--minibatch", "231"], ["231 with 230 training rows", "--minibatch"]),
        (["--momentum", "0.9"], ["unrecognized arguments: --momentum"]),
        (["--config", "none.toml"], ["none.toml must be a readable file"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_bad_options_of_fine_tuning(refused, run_copy, options, words):
    refused(words, "finetune", "run", *options)


def test_cross_entropy_on_linear_data(folder, refused):
    options = ["--visible", "linear", "--learning-rate", "0.01"]
    launch.run("pretrain", "tiny.h5", "--run", "run", *SMALL, *options, cwd=folder).ok()
    refused(["cross entropy", "linear"], "finetune", "run", "--loss", "cross-entropy")


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_data_that_moved(folder, refused, tiny, command):
    arguments = ["pretrain", "tiny.h5", "--run", "run", *SMALL]
    launch.run(*arguments, cwd=folder).ok()
    (folder / "tiny.h5").rename(folder / "elsewhere.h5")
    refused(["tiny.h5 is not a file", "--data"], command, "run")
    refused(["tiny.h5 is not a file", "--data"], command, "run", ranks=2)
    launch.run(command, "run", "--data", "elsewhere.h5", cwd=folder).ok()


def test_data_that_changed(folder, refused):
    launch.run("pretrain", "tiny.h5", "--run", "run", *SMALL, cwd=folder).ok()
    write_pixels(folder / "tiny.h5", n_rows=240)
    for command in ("finetune", "evaluate"):
        refused(["must be the data set of the run", "--data"], command, "run")


def test_evaluate_of_unknown_splits(folder, refused, run_copy):
    words = ["unknown split 'tset'; choose from train, validation, test", "'test'?"]
    refused(words, "evaluate", "run", "--split", "tset")
    refused(words, "evaluate", "run", "--split", "tset", ranks=2)
    write_floats(folder / "floats.h5", lambda x: None)
    arguments = ["evaluate", "run", "--data", "floats.h5", "--split", "validation"]
    words = ["no split 'validation'", "train, test", "one of these with --split"]
    refused(words, *arguments)


@pytest.mark.parametrize("command", ["evaluate", "encode", "reconstruct"])
def test_data_of_another_width(folder, refused, run_copy, command):
    write_pixels(folder / "wide.h5", n_columns=21)
    arguments = {
        "evaluate": ["evaluate", "run", "--data", "wide.h5"],
    }.get(command, [command, "run", "wide.h5", "-o", "out.h5"])
    refused(["as many columns as the run, 20", "wide.h5 has 21"], *arguments)


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_outputs_that_cannot_be_written(folder, refused, run_copy, command):
    (folder / "out.h5").write_text("precious")
    words = ["must name a new file; out.h5 exists", "--replace"]
    refused(words, command, "run", "tiny.h5", "-o", "out.h5")
    refused("none/out.h5", command, "run", "tiny.h5", "-o", "none/out.h5")
    refused("out.h5/out.h5", command, "run", "tiny.h5", "-o", "out.h5/out.h5")
    refused("run", command, "run", "tiny.h5", "-o", "run", "--replace")
    launch.run(command, "run", "tiny.h5", "-o", "out.h5", "--replace", cwd=folder).ok()


def test_encode_of_bad_data(folder, refused, run_copy):
    for case in ("missing", "truncated", "newer"):
        BAD_DATA[case][0](folder / "bad.h5")
        refused(BAD_DATA[case][1], "encode", "run", "bad.h5", "-o", "out.h5")
        (folder / "bad.h5").unlink(missing_ok=True)
