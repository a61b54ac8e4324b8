"""Fine-tuning with the default options: the same bytes on any number of ranks."""

import shutil
import tomllib

import pytest

from benchmarks.record import digest
from tests.support.command import refuse, said
from tests.support.small import records

STACK = "--layers 260,20 --epochs 1 --threads 1 --monitor-rows 20"


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Give a folder with a pre-trained run, ``new``, wide enough for four slices."""
    folder = tmp_path_factory.mktemp("units")
    said(folder, f"pretrain {tiny} --run new {STACK}")
    return folder


def tuned(folder, name, *launches):
    """Return the digests and errors that launches, of ranks and options, lead to."""
    shutil.copytree(folder / "new", folder / name)
    for ranks, options in launches:
        said(folder, f"finetune {name} {options}", ranks=ranks)
    kept = [
        (line["train_loss"], line["validation_error"])
        for line in records(folder / name, "finetune")
    ]
    return digest(folder / name), kept


def test_any_number_of_ranks(folder):
    words = "Start at most 2 a host"  # other mistakes are in ``unit/train``
    refuse(folder, "finetune new --slices 2", words, ranks=3)
    alone = tuned(folder, "alone", (0, "--epochs 3"))
    settings = tomllib.loads((folder / "alone" / "config.toml").read_text())
    assert settings["finetune"]["slices"] == 4
    assert settings["finetune"]["parallel"] == "units"
    assert tuned(folder, "two", (2, "--epochs 3")) == alone
    goes_on = (2, "--epochs 2 --resume auto"), (0, "--epochs 3 --resume auto")
    assert tuned(folder, "parts", (4, "--epochs 1"), *goes_on) == alone
