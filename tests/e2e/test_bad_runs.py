"""Mistakes with runs: one message, exit code 2, nothing changed on disk."""

import json
import shutil

import pytest

from tests.e2e.conftest import contents, flip, read_summary, records, write_pixels
from tests.support import launch

PRETRAIN = ("pretrain", "tiny.h5", "--layers", "6,4", "--epochs", "1", "--run")
SPARSE = ("sparse", "toy.h5", "--hidden", "5", "--evaluations", "20", "--run")


@pytest.fixture(scope="module")
def learned(toy, tmp_path_factory):
    """Give a sparse run that tests only read."""
    run = tmp_path_factory.mktemp("sparse") / "run"
    launch.run("sparse", toy, *SPARSE[2:], run).ok()
    return run


@pytest.fixture(autouse=True)
def folder(tiny, toy, pretrained, learned, tmp_path):
    """Give a folder with data sets and the runs ``deep`` and ``sparse``."""
    shutil.copy(tiny, tmp_path / "tiny.h5")
    shutil.copy(toy, tmp_path / "toy.h5")
    shutil.copytree(pretrained, tmp_path / "deep")
    shutil.copytree(learned, tmp_path / "sparse")
    return tmp_path


# --- where a run shall be


@pytest.mark.parametrize(
    ("begin", "run", "ranks"),
    [(PRETRAIN, "deep", 0), (PRETRAIN, "deep", 2), (SPARSE, "sparse", 0)],
)
def test_an_existing_run_is_kept_unless_replaced(folder, refused, begin, run, ranks):
    words = [f"{run} holds a run already", "--replace", "another name"]
    refused(words, *begin, run, ranks=ranks)
    if ranks:
        return
    launch.run(*begin, run, "--replace", cwd=folder).ok()
    assert not (folder / run / "checkpoints" / "layer-3.h5").exists()
    if begin is PRETRAIN:
        assert len(records(folder / run, "layer-1")) == 1
    else:
        assert len(records(folder / run)) == 20


def test_a_failed_replacement_leaves_the_old_run(folder, refused):
    (folder / "tiny.h5").write_text("no data")
    refused("tiny.h5", *PRETRAIN, "deep", "--replace")


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_a_folder_with_other_files_is_refused(folder, refused, options):
    (folder / "deep" / "thesis.tex").write_text("precious")
    words = ["holds other files (thesis.tex)", "another name"]
    refused(words, *PRETRAIN, "deep", *options)
    (folder / "other").mkdir()
    (folder / "other" / "metrics").write_text("precious")
    refused("holds other files", *PRETRAIN, "other", *options)
    (folder / "file").write_text("precious")
    for begin in (PRETRAIN, SPARSE):
        refused(
            ["--run must name a folder", "file is a file"], *begin, "file", *options
        )
    # Not even root can write below a file.
    refused(["can be written", "another folder"], *PRETRAIN, "file/run", *options)


def test_an_empty_folder_is_welcome(folder):
    (folder / "empty").mkdir()
    launch.run(*PRETRAIN, "empty", cwd=folder).ok()


# --- what a run must be


USES = {
    "finetune": ("finetune", "deep"),
    "evaluate": ("evaluate", "deep"),
    "encode": ("encode", "deep", "tiny.h5", "-o", "out.h5"),
    "reconstruct": ("reconstruct", "deep", "tiny.h5", "-o", "out.h5"),
}


@pytest.mark.parametrize("command", [*USES, "resume"])
def test_a_directory_that_is_no_run(folder, refused, command):
    arguments = USES.get(command, (command, "deep"))
    words = ["deep must be the directory of a run", "mpilayer pretrain"]
    shutil.rmtree(folder / "deep")
    refused(words, *arguments)
    (folder / "deep").mkdir()
    refused(words, *arguments, ranks=2 * (command == "resume"))


@pytest.mark.parametrize("command", USES)
def test_a_damaged_checkpoint(folder, refused, command):
    flip(folder / "deep" / "checkpoints" / "layer-2.h5")
    refused(["layer-2.h5", "damaged"], *USES[command])


def test_a_damaged_checkpoint_of_a_sparse_run(folder, refused):
    flip(folder / "sparse" / "checkpoints" / "sparse.h5")
    refused(["sparse.h5", "damaged"], "evaluate", "sparse")


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_a_lost_checkpoint(folder, refused, command):
    path = folder / "deep" / "checkpoints" / "layer-3.h5"
    path.write_bytes(path.read_bytes()[:3000])
    refused("layer-3.h5 must be a whole HDF5 file", *USES[command])
    path.unlink()
    refused("layer 3 has no checkpoint", *USES[command], ranks=2)


@pytest.mark.parametrize("text", ["[pretrain", "[data]\nn_visible = 20"])
def test_damaged_settings(folder, refused, text):
    (folder / "deep" / "config.toml").write_text(text)
    refused(["config.toml", "must"], "finetune", "deep")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_summary_is_made_again(folder, text):
    run = folder / "deep"
    expected = read_summary(run)["test_error"]
    (run / "summary.json").write_text(text)
    result = launch.run("finetune", run)
    launch.assert_user_error(result, f"mpilayer resume {run}")
    assert "summary.json must be as it was written" in result.stderr
    launch.run("resume", run).ok()
    assert read_summary(run)["test_error"] == expected


def test_a_checkpoint_of_another_run(folder, refused):
    checkpoints = folder / "deep" / "checkpoints"
    shutil.copy(checkpoints / "layer-1.h5", checkpoints / "layer-2.h5")
    refused(["layer-2.h5", "another configuration"], "finetune", "deep")


def test_a_fine_tuned_run(folder, refused):
    launch.run("finetune", "deep", "--epochs", 1, cwd=folder).ok()
    words = ["deep must not be fine-tuned yet", "--replace"]
    refused(words, "finetune", "deep", "--epochs", 1, ranks=2)
    words = ["sparse", "mpilayer pretrain"]
    refused(words, "finetune", "sparse", ranks=2)


def test_an_interrupted_sparse_run(folder, refused):
    """With a checkpoint it can be used, without one it must go on first."""
    run = folder / "sparse"
    for name in ("summary.json", "complete"):
        (run / name).unlink()
    found = launch.run("evaluate", run, "--json", ranks=2).ok()
    assert json.loads(found.stdout)["model"] == "sparse"
    (run / "checkpoints" / "sparse.h5").unlink()
    words = ["must have trained weights", "interrupted", "mpilayer resume sparse"]
    refused(words, "evaluate", "sparse", ranks=2)
    refused(words, "encode", "sparse", "toy.h5", "-o", "out.h5")


# --- what it is used with


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_data_that_moved_or_changed(folder, refused, command):
    launch.run(*PRETRAIN, "new", cwd=folder).ok()
    (folder / "tiny.h5").rename(folder / "elsewhere.h5")
    refused(["tiny.h5 is not a file", "--data"], command, "new", ranks=2)
    write_pixels(folder / "tiny.h5", n_rows=240)
    refused(["must be the data set of the run", "--data"], command, "new")
    launch.run(command, "new", "--data", "elsewhere.h5", cwd=folder).ok()


def test_evaluate_of_unknown_splits(folder, refused):
    words = ["unknown split 'tset'; choose from train, validation, test", "'test'?"]
    refused(words, "evaluate", "deep", "--split", "tset", ranks=2)
    words = ["no split 'validation'", "train, test", "one of these with --split"]
    refused(words, "evaluate", "sparse", "--split", "validation")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "deep", "--data", "wide.h5"),
        ("encode", "deep", "wide.h5", "-o", "out.h5"),
        ("reconstruct", "deep", "wide.h5", "-o", "out.h5"),
        ("encode", "sparse", "wide.h5", "-o", "out.h5"),
    ],
)
def test_data_of_another_width(folder, refused, arguments):
    write_pixels(folder / "wide.h5", n_columns=21)
    width = 20 if "deep" in arguments else 16
    words = [f"as many columns as the run, {width}", "wide.h5 has 21"]
    refused(words, *arguments)


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_outputs_that_cannot_be_written(folder, refused, command):
    (folder / "out.h5").write_text("precious")
    use = [command, "deep", "tiny.h5", "-o"]
    refused(["must name a new file; out.h5 exists", "--replace"], *use, "out.h5")
    refused("none/out.h5", *use, "none/out.h5")
    refused("out.h5/out.h5", *use, "out.h5/out.h5")
    refused("deep", *use, "deep", "--replace")
    before = contents(folder / "deep")
    launch.run(*use, "out.h5", "--replace", cwd=folder).ok()
    assert contents(folder / "deep") == before
