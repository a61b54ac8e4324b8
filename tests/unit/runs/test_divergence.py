"""Runs whose weights become infinite: an error, never a result."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from mpilayer import hdf5
from mpilayer.config import FinetuneConfig, PretrainConfig
from mpilayer.errors import CheckpointError, TrainingError
from mpilayer.report.run import collect
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.tasks import load_stack
from mpilayer.runs.use import export
from mpilayer.store import checkpoint
from tests.support.runs import pretrain, run_finetune
from tests.unit.runs.conftest import make_session

STACK = PretrainConfig(
    layers=(8, 5), epochs=(3,), minibatch=10, visible="linear", learning_rate=(0.001,)
)
TUNE = FinetuneConfig(epochs=40, minibatch=10, optimizer="sgd", learning_rate=0.7)


def finite(path, group):
    arrays, _ = checkpoint.load(path)
    mine = [v for k, v in arrays.items() if k.startswith(group)]
    return bool(mine) and all(np.isfinite(v).all() for v in mine)


@pytest.mark.parametrize("layer", [0, 1])
def test_pre_training(small, tmp_path, layer):
    rates = tuple(1e30 if i == layer else 0.001 for i in range(2))
    config, run = replace(STACK, learning_rate=rates), tmp_path / "run"
    message = f"layer {layer + 1} are not after epoch 1"
    for launch in (
        lambda: pretrain(small, run, config, make_session()),
        lambda: resume(run, make_session()),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            launch()
        assert caught.value.collective
        assert not RunDirectory(run).completed()
        for path in RunDirectory(run).checkpoints.iterdir():
            assert finite(path, "parameters/")
    with pytest.raises(CheckpointError, match="to the end"):
        evaluate(run, "train", make_session())


@pytest.fixture
def run(small, tmp_path):
    """Give a pre-trained run."""
    pretrain(small, tmp_path / "run", STACK, make_session())
    return tmp_path / "run"


@pytest.mark.parametrize("every", [1, 1000])
def test_fine_tuning_keeps_what_was_finite(run, every):
    directory = RunDirectory(run)
    with pytest.raises(TrainingError, match="fine-tuning") as caught:
        run_finetune(run, TUNE, make_session(checkpoint_every=every))
    assert caught.value.collective
    assert directory.completed() == ["pretrain"]
    path = directory.checkpoint("finetuned")
    assert f"after epoch {checkpoint.attributes(path)['epoch'] + 1}:" in str(
        caught.value
    )
    assert finite(path, "best/")
    assert finite(path, "parameters/")
    assert load_stack(directory).parameters.is_finite()


@pytest.mark.parametrize("name", ["layer-1", "layer-2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_of_older_runs_that_are_not_finite(run, tmp_path, name, value):
    path = run / "checkpoints" / f"{name}.h5"
    with h5py.File(path, "r+") as file:
        file["parameters/weights"][0, 0] = value
        file.attrs["digest"] = hdf5.content_digest(file)
    # As older versions left it: without a seal.
    path.write_bytes(path.read_bytes().partition(b"\nmpilayer sha256 ")[0])
    message = f"{name}.h5 must hold finite numbers; parameters/weights has others"
    for task in (
        lambda: evaluate(run, "train", make_session()),
        lambda: export(run, tmp_path / "out.npz"),
        lambda: run_finetune(run, TUNE, make_session()),
    ):
        with pytest.raises(CheckpointError, match=message):
            task()
    assert not (tmp_path / "out.npz").exists()
    (seen,) = collect([run])
    assert any(message in remark for remark in seen.remarks)
    assert seen.weights is None or np.isfinite(seen.weights).all()
