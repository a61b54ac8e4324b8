"""Mistakes: one message, exit code 2, nothing changed on disk.

What values a setting may have is in ``tests/unit/test_config.py``, mistakes in
preparing data in ``unit/cli/test_data.py``; those of one command stand beside it.
"""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from mpilayer.data.dataset import write_dataset
from mpilayer.data.split import Split
from tests.support import launch
from tests.support.command import call, found, refuse, said
from tests.support.small import contents, flip, records, write_patches, write_pixels

SMALL = "--layers 6,4 --epochs 1 --minibatch 50"
PRETRAIN = f"pretrain tiny.h5 --run new {SMALL}"
SPARSE = "sparse toy.h5 --run new"
FOUR = "pretrain tiny.h5 --run new --layers 14,10,8,4"
TWO = "mpiexec -n 2"
LONG = "x" * 300


# --- what is in the folder


def floats(value):
    """Return what writes floats in [0, 1], but for one."""

    def make(path):
        rng = np.random.default_rng(5)
        splits = {name: Split(rng.random((60, 9))) for name in ("train", "test")}
        write_dataset(path, splits, name="floats", origin="made up", scale=1.0)
        with h5py.File(path, "r+") as file:
            file["train/x"][41, 7] = value

    return make


def damage(path):
    """Write a data set, a part of which cannot be read."""
    write_pixels(path)
    with h5py.File(path) as file:
        chunk = file["train/x"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)


def far(x):
    """Move rows away from what a unit can take."""
    x[:] = x[:] - 1e3


# What a file may be is in ``tests/unit/test_hdf5.py`` and ``data/test_dataset.py``.
DATA = {
    "text": lambda path: path.write_text("1,2\n3,4\n"),
    "damaged": damage,
    "nan": floats(np.nan),
    "above": floats(3.5),
    "negative": floats(-0.25),
    "far": lambda path: write_patches(path, change=far),
    "wide": lambda path: write_pixels(path, n_columns=21),
    "taken": lambda path: path.write_text("precious"),
}
SETTINGS = {
    "key": "[pretrain]\nlayrs = [4]",
    "zzz": "[pretrain]\nzzz = 4",
    "texts": "[pretrain]\nlayers = 'many'",
    "preset": "[sparse]\npreset = 3",
    "zeros": "[pretrain]\nepochs = 0\nminibatch = 0",
    "mine": "[data]\npath = 'tiny.h5'\n[pretrain]\nepochs = 0",
}
# Schedules to replay: what a table may be is in ``unit/train/test_schedule.py``.
TABLES = {
    "two": lambda table: {**table, "used": [[0], [1]], "stipulated": [1, 1]},
    "future": lambda table: {**table, "used": [[0], [2], [1], [1]]},
}
RUNS = {
    "flipped": lambda run: flip(run / "checkpoints" / "layer-2.h5"),
    "cut": lambda run: os.truncate(run / "checkpoints" / "layer-3.h5", 3000),
    "lost": lambda run: (run / "checkpoints" / "layer-3.h5").unlink(),
    "swapped": lambda run: shutil.copy(
        run / "checkpoints" / "layer-1.h5", run / "checkpoints" / "layer-2.h5"
    ),
    "no-toml": lambda run: (run / "config.toml").write_text("[pretrain"),
    "no-layers": lambda run: (run / "config.toml").write_text("[data]\nn_visible = 20"),
    "no-summary": lambda run: (run / "summary.json").write_text("{"),
    "thesis": lambda run: (run / "thesis.tex").write_text("precious"),
}


@pytest.fixture(scope="module")
def folder(tiny, toy, pretrained, tmp_path_factory):
    """Give a folder with data, files of settings, tables and runs, good and bad."""
    folder = tmp_path_factory.mktemp("refused")
    shutil.copy(tiny, folder / "tiny.h5")
    shutil.copy(toy, folder / "toy.h5")
    for name, make in DATA.items():
        make(folder / f"{name}.h5")
    for name, text in SETTINGS.items():
        (folder / f"{name}.toml").write_text(text)
    table = json.loads((pretrained / "schedule.json").read_text())
    for name, change in TABLES.items():
        (folder / f"{name}.json").write_text(json.dumps(change(table)))
    (folder / "my rows.csv").write_text("1,2\n3,4\n")
    (folder / "file").write_text("precious")
    with h5py.File(folder / "scenes.h5", "w") as file:
        file["images"] = np.zeros((2, 9, 9))
    for name in ("empty", "other", "other/metrics"):
        (folder / name).mkdir()
    (folder / "other" / "mine").touch()
    shutil.copytree(pretrained, folder / "deep")
    for name, change in RUNS.items():
        change(shutil.copytree(pretrained, folder / name))
    shutil.copytree(pretrained, folder / "tuned")
    for name in ("moved", "changed"):
        shutil.copy(tiny, folder / f"{name}.h5")
        said(folder, f"pretrain {name}.h5 --run {name} {SMALL}")
    (folder / "moved.h5").rename(folder / "elsewhere.h5")
    write_pixels(folder / "changed.h5", n_rows=240)
    said(folder, "finetune tuned --epochs 1")
    said(folder, "sparse toy.h5 --run sparse --hidden 5 --evaluations 20")
    for name in ("sparse-flipped", "begun", "hardly"):
        shutil.copytree(folder / "sparse", folder / name)
    flip(folder / "sparse-flipped" / "checkpoints" / "sparse.h5")
    for name in ("begun", "hardly"):
        for file in ("summary.json", "complete"):
            (folder / name / file).unlink()
    (folder / "hardly" / "checkpoints" / "sparse.h5").unlink()
    return folder


# --- what is refused: a line, and words of the message

REPLACE = "holds a run already", "--replace", "another name"
OTHERS = "holds other files", "another name"
NO_RUN = "must be the directory of a run", "mpilayer pretrain"
NOTHING = "missing.h5", "found nothing there"
READ = "must be a whole HDF5 file; it cannot be read"
NAN = "nan.h5", "row 41, column 7 is nan"
WIDTH = "as many columns as the run", "wide.h5 has 21"
OTHER_DATA = "must be the data set of the run", "--data"

REFUSED = [
    # The data set.
    (f"{TWO} pretrain missing.h5 --run new {SMALL}", *NOTHING),
    ("sparse missing.h5 --run new", *NOTHING),
    ("encode deep missing.h5 -o out.h5", *NOTHING),
    (f"pretrain text.h5 --run new {SMALL}", "text.h5", "it is not an HDF5 file"),
    (f"pretrain damaged.h5 --run new {SMALL}", f"damaged.h5 {READ}"),
    ("encode deep damaged.h5 -o out.h5", f"damaged.h5 {READ}"),
    (f"{TWO} pretrain nan.h5 --run new {SMALL}", *NAN),
    (f"{TWO} sparse nan.h5 --run new", *NAN),  # which one rank alone finds
    (f"pretrain above.h5 --run new {SMALL}", "in [0, 1]; above.h5 has"),
    (f"pretrain negative.h5 --run new {SMALL}", "negative.h5", "--visible linear"),
    ("sparse far.h5 --run new --output linear", "first cost must be", "scale the data"),
    (f"{TWO} compare far.h5 --run new --output linear", "first cost must be finite"),
    # What a data set can be made of is answered with the command.
    (f"pretrain 'my rows.csv' --run new {SMALL}",
     "mpilayer data prepare 'my rows.csv' -o 'my rows.h5'"),
    (f"pretrain empty --run new {SMALL}", "mpilayer data prepare empty -o empty.h5"),
    (f"pretrain scenes.h5 --run new {SMALL}",
     "mpilayer data patches scenes.h5 -o patches.h5"),
    # Options: one of each kind of mistake.
    (f"{PRETRAIN} --layers 10,0", "layers must be at least 1; got 0. Change --layers"),
    (f"{PRETRAIN} --layers 10,many", "--layers", "list of numbers", "'10,many'"),
    (f"{PRETRAIN} --minibatch 231", "got 231 with 230 training rows", "--minibatch"),
    (f"{PRETRAIN} --hidden tanh", "RBM", "sigmoid", "linear"),
    (f"{PRETRAIN} --method autoencoder --loss cross-entropy --hidden relu",
     "cross entropy", "sigmoid"),
    (f"{PRETRAIN} --layrs 4", "--layrs 4. Did you mean --layers?", "--help"),
    (f"{PRETRAIN} --epoch 3", "arguments: --epoch 3. Did you mean --epochs?"),
    (f"{PRETRAIN} --monitor=3", "--monitor=3. Did you mean --monitor-rows?"),
    (f"{PRETRAIN} --zzz", "unrecognized arguments: --zzz. See"),
    (f"{PRETRAIN} -epochs 3", "unrecognized arguments: -epochs 3. See"),
    (f"{PRETRAIN} --epochs", "--epochs", "expected one argument"),
    (f"{PRETRAIN} --threads -1", "--threads", "0 or more; got '-1'"),
    (f"{PRETRAIN} --run {LONG}", "too long"),
    (f"{PRETRAIN} --config {LONG}", "too long"),
    (f"{PRETRAIN} --config none.toml", "none.toml must be a readable file", "another"),
    (f"{SPARSE} --output sigmoid", "data in [0, 1]", "--output tanh or linear"),
    (f"{SPARSE} --optimizer sgd --minibatch 301", "got 301 with 300 training rows"),
    (f"{SPARSE} --shards 301", "301 shards with 300 training rows", "at most 300"),
    (f"{SPARSE} --kl exact --shards 2", "--shards belongs to --kl average; got 2"),
    ("finetune deep --minibatch 231", "231 with 230 training rows", "--minibatch"),
    ("finetune deep --momentum 0.9", "unrecognized arguments: --momentum"),
    ("pretrain tiny.h5", "--run"),
    ("pretrain --run new", "DATA.h5"),
    ("evaluate", "DIR"),
    (f"evaluate {LONG}", "too long"),
    (f"config -o {LONG}", "too long"),
    (f"pretrain {LONG} --run new", "too long"),
    (f"data prepare tiny.h5 -o {LONG}.h5", "too long"),
    # What all ranks find is told once: the parser's, the settings', and rank 0's.
    (f"{TWO} {PRETRAIN} --epochs many", "--epochs"),
    (f"{TWO} {PRETRAIN} --layers 6,0", "--layers"),
    (f"{TWO} {PRETRAIN} --run file/run", "can be written", "another folder"),
    (f"mpiexec -n 3 {PRETRAIN}", "3 ranks for 2 slices of 2 layers", "at most 2 ranks"),
    ("mpiexec -n 3 encode deep tiny.h5 -o out.h5",
     "one process", "3", "without mpiexec"),
    # Files of settings: a bad value is told in the words of its place.
    (f"{PRETRAIN} --config key.toml", "key.toml", "'layrs'. Did you mean 'layers'?"),
    (f"{PRETRAIN} --config zzz.toml", "[pretrain]: unknown key 'zzz'; choose"),
    ("pretrain tiny.h5 --run new --config texts.toml", "of type int", "whole number"),
    (f"{SPARSE} --config preset.toml", "preset must be of type str; got 3"),
    ("pretrain tiny.h5 --run new --config zeros.toml --epochs -3",
     " epochs must be at least 1; got -3. Change --epochs."),
    ("pretrain tiny.h5 --run new --config zeros.toml",
     "zeros.toml, [pretrain]: epochs must be at least 1; got 0. Change epochs."),
    ("pretrain tiny.h5 --run new --config zeros.toml --epochs 3",
     "[pretrain]: minibatch must be"),
    ("run none.toml",
     "must be a readable file", "Give another one", "mpilayer config"),
    ("run mine.toml", "mine.toml", "[pretrain]: epochs must", "Change epochs."),
    # Schedules.
    (f"{FOUR} --schedule replay:none.json", "is not a file"),
    (f"{FOUR} --schedule replay:two.json", "has 2, --layers 4"),
    (f"{FOUR} --schedule replay:future.json", "epoch 1 asks for 2"),
    # Where a run shall be. Not even root can write below a file.
    (f"{TWO} {PRETRAIN} --run deep", "deep", *REPLACE),
    (f"{SPARSE} --run sparse", "sparse", *REPLACE),
    (f"pretrain text.h5 --run deep {SMALL} --replace", "text.h5"),
    *((f"{begin} {more}", *words)
      for more in ("", "--replace")
      for begin, words in (
          (f"{PRETRAIN} --run thesis", ("(thesis.tex)", *OTHERS)),
          (f"{PRETRAIN} --run other", OTHERS),
          (f"{PRETRAIN} --run file", ("--run must name a folder", "file is a file")),
          (f"{SPARSE} --run file", ("--run must name a folder", "file is a file")),
          (f"{PRETRAIN} --run file/run", ("can be written", "another folder")),
      )),
    # What a run must be.
    *((f"{line.format(name)}", name, *NO_RUN)
      for name in ("empty", "nowhere")
      for line in ("finetune {}", "evaluate {}", "encode {} tiny.h5 -o out.h5",
                   "reconstruct {} tiny.h5 -o out.h5", f"{TWO} resume {{}}")),
    *((line, "layer-2.h5", "damaged")
      for line in ("finetune flipped", "evaluate flipped",
                   "encode flipped tiny.h5 -o out.h5",
                   "reconstruct flipped tiny.h5 -o out.h5")),
    ("evaluate sparse-flipped", "sparse.h5", "damaged"),
    ("evaluate cut", "layer-3.h5 must be a whole HDF5 file"),
    (f"{TWO} evaluate lost", "layer 3 has no checkpoint"),
    ("finetune swapped", "layer-2.h5", "another configuration"),
    ("finetune no-toml", "config.toml", "must"),
    ("finetune no-layers", "config.toml", "must"),
    ("finetune no-summary", "pre-trained to the end", "mpilayer resume no-summary"),
    (f"{TWO} finetune tuned --epochs 1", "must not be fine-tuned yet", "--replace"),
    (f"{TWO} finetune sparse", "sparse", "mpilayer pretrain"),
    (f"{TWO} evaluate hardly",
     "must have trained weights", "interrupted", "mpilayer resume hardly"),
    ("encode hardly toy.h5 -o out.h5", "must have trained weights"),
    # What it is used with.
    (f"{TWO} evaluate moved", "moved.h5 is not a file", "--data"),
    ("finetune changed", *OTHER_DATA),
    ("evaluate changed", *OTHER_DATA),
    (f"{TWO} evaluate deep --split tset",
     "unknown split 'tset'; choose from train, validation, test", "'test'?"),
    ("evaluate sparse --split validation",
     "no split 'validation'", "train, test", "one of these with --split"),
    ("evaluate deep --data wide.h5", ", 20", *WIDTH),
    ("encode deep wide.h5 -o out.h5", ", 20", *WIDTH),
    ("reconstruct deep wide.h5 -o out.h5", ", 20", *WIDTH),
    ("encode sparse wide.h5 -o out.h5", ", 16", *WIDTH),
    *((f"{command} deep tiny.h5 -o {out}", *words)
      for command in ("encode", "reconstruct")
      for out, words in (
          ("taken.h5", ("must name a new file; taken.h5 exists", "--replace")),
          ("none/out.h5", ("none/out.h5",)),
          ("taken.h5/out.h5", ("taken.h5/out.h5",)),
          ("deep --replace", ("deep",)),
      )),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0].replace(LONG, "x"))
def test_what_is_refused(folder, case):
    line, *words = case
    refuse(folder, line, *words)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_folder(tiny, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    line = f"pretrain {tiny} --run closed/run {SMALL}"
    refuse(tmp_path, line, "can be written", "permissions")


LAUNCHERS = {
    "pmi": ({"PMI_SIZE": "4"}, "PMI_RANK", ["mpiexec"]),
    "slurm": (
        {"SLURM_STEP_NUM_TASKS": "4"},
        "SLURM_PROCID",
        ["srun --mpi=pmi2", "mpiexec"],
    ),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_gave_every_process_its_own_world(folder, name):
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("Open MPI takes these variables for its own launcher's")
    variables, rank, words = LAUNCHERS[name]
    words = ["launcher started 4 processes", "joined 1", "alone", "Start it", *words]
    refuse(folder, PRETRAIN, *words, variables=variables | {rank: "0"})
    before = contents(folder)
    other = call(folder, PRETRAIN, variables=variables | {rank: "2"})
    assert (other.code, other.stdout, other.stderr) == (2, "", "")
    assert contents(folder) == before


# --- what is not


def test_a_run_is_replaced_on_demand(folder, tmp_path):
    """Its files are gone; and an empty folder is as good as none."""
    for name in ("tiny.h5", "toy.h5"):
        shutil.copy(folder / name, tmp_path)
    for name in ("deep", "sparse", "empty"):
        shutil.copytree(folder / name, tmp_path / name)
    said(tmp_path, f"{PRETRAIN} --run deep --replace")
    assert not (tmp_path / "deep" / "checkpoints" / "layer-3.h5").exists()
    assert len(records(tmp_path / "deep", "layer-1")) == 1
    said(tmp_path, f"{SPARSE} --run sparse --replace --evaluations 3")
    assert len(records(tmp_path / "sparse")) == 3
    said(tmp_path, f"{PRETRAIN} --run empty")


def test_data_that_moved_are_named_and_an_interrupted_run_can_be_used(folder):
    said(folder, "evaluate moved --data elsewhere.h5")
    assert found(folder, f"{TWO} evaluate begun")["model"] == "sparse"


def test_data_outside_0_to_1_are_welcome_to_linear_units(folder, tmp_path):
    shutil.copy(folder / "above.h5", tmp_path)
    options = "--visible linear --learning-rate 0.01"
    said(tmp_path, f"pretrain above.h5 --run run {SMALL} {options}")
    refuse(tmp_path, "finetune run --loss cross-entropy", "cross entropy", "linear")
