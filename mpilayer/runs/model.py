"""Layers and stacks to checkpoints, and back."""

from pathlib import Path

from mpilayer.config import PretrainConfig, SparseConfig, as_values, from_values
from mpilayer.errors import CheckpointError
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.parameters import Parameters
from mpilayer.runs.directory import RunDirectory
from mpilayer.store import checkpoint
from mpilayer.train.descent import State
from mpilayer.train.finetune import FinetuneState
from mpilayer.train.layer import LayerState, layer_shapes, make_layer
from mpilayer.train.sparse import ShardedCost, make_model


def save_layer(directory: RunDirectory, state: LayerState) -> None:
    """Write a layer's checkpoint. Local to the rank that holds the layer."""
    layer = state.layer
    velocity = layer.parameters.like()
    velocity.vector[:] = state.optimizer.state["velocity"]
    shape = layer.shape
    checkpoint.save(
        directory.layer_checkpoint(state.settings.index),
        {
            **{f"parameters/{k}": v for k, v in layer.parameters.items()},
            **{f"velocity/{k}": v for k, v in velocity.items()},
        },
        {
            "content": "layer",
            "layer": state.settings.index + 1,
            "epoch": state.epoch,
            "n_visible": shape.n_visible,
            "n_hidden": shape.n_hidden,
            "visible": shape.visible,
            "hidden": shape.hidden,
        },
    )


def save_finetuned(directory: RunDirectory, state: FinetuneState) -> None:
    """Write the fine-tuned stack: best weights, last ones, and the optimizer."""
    stack = state.stack
    best = stack.parameters.like()
    best.vector[:] = state.best
    arrays = {f"best/{k}": v for k, v in best.items()}
    arrays |= {f"parameters/{k}": v for k, v in stack.parameters.items()}
    for name, vector in state.optimizer.state.items():
        named = stack.parameters.like()
        named.vector[:] = vector
        arrays |= {f"{name}/{k}": v for k, v in named.items()}
    checkpoint.save(
        directory.checkpoint("finetuned"),
        arrays,
        {
            "content": "finetuned",
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_error": state.best_error,
            "optimizer_steps": state.optimizer.steps,
            **{f"finetune_{k}": v for k, v in as_values(state.config).items()},
        },
    )


def save_sparse(
    directory: RunDirectory,
    shape: LayerShape,
    parameters: Parameters,
    state: State,
    cost: ShardedCost,
) -> None:
    """Write a sparse autoencoder and the state of its optimizer."""
    checkpoint.save(
        directory.checkpoint("sparse"),
        {
            **{f"parameters/{k}": v for k, v in parameters.items()},
            **{f"optimizer/{k}": v for k, v in state.arrays().items()},
        },
        {
            "content": "sparse",
            "evaluations": cost.evaluations,
            "n_visible": shape.n_visible,
            "n_hidden": shape.n_hidden,
            "visible": shape.visible,
            "hidden": shape.hidden,
            **{f"optimizer_{k}": v for k, v in state.numbers().items()},
        },
    )


def load_trained(directory: RunDirectory) -> tuple[str, DeepAutoencoder]:
    """Return what a run has trained, and what that is. Local.

    Returns
    -------
    str, DeepAutoencoder
        ``sparse``, ``pretrained`` or ``finetuned``; a sparse autoencoder is a stack of
        one layer.

    Raises
    ------
    CheckpointError
        The run is not finished, or a checkpoint is missing or damaged.
    """
    sections = directory.read_config()
    if "compare" in sections:
        raise CheckpointError(
            f"{directory.path} must be one run; it is a comparison of two. Give "
            f"{directory.path / 'average'} or {directory.path / 'exact'}."
        )
    if "sparse" in sections:
        return "sparse", _load_sparse(directory)
    check_pretrained(directory)
    kind = "finetuned" if is_finetuned(directory) else "pretrained"
    return kind, load_stack(directory)


def _load_sparse(directory: RunDirectory) -> DeepAutoencoder:
    if "cost" not in directory.read_summary():
        raise CheckpointError(
            f"{directory.path} must be trained to the end; it was interrupted. Train "
            "it: mpilayer sparse DATA.h5 --run DIR --replace."
        )
    sections = directory.read_config()
    try:
        n_visible = int(sections["data"]["n_visible"])
    except KeyError as error:
        raise _incomplete(directory, error) from error
    model = make_model(from_values(SparseConfig, sections["sparse"]), n_visible)
    _fill(model.parameters, directory.checkpoint("sparse"), "parameters")
    stack, p = DeepAutoencoder([model.shape]), model.parameters
    stack.parameters["weights_0"][:] = p["weights"]
    stack.parameters["bias_0"][:] = p["hidden_bias"]
    stack.parameters["weights_1"][:] = p["decode_weights"]
    stack.parameters["bias_1"][:] = p["visible_bias"]
    return stack


def load_stack(directory: RunDirectory, pretrained: bool = False) -> DeepAutoencoder:
    """Return a run's model: fine-tuned if it was, else the unrolled layers. Local.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    pretrained : bool
        Take the unrolled layers even if the run was fine-tuned.

    Raises
    ------
    CheckpointError
        A checkpoint is missing or damaged, or the run is not finished.
    """
    config, shapes = run_shapes(directory)
    path = directory.checkpoint("finetuned")
    if not pretrained and path.exists():
        stack = DeepAutoencoder(shapes)
        _fill(stack.parameters, path, "best")
        return stack
    layers = []
    for index, shape in enumerate(shapes):
        layer = make_layer(config, shape)
        _fill(layer.parameters, directory.layer_checkpoint(index), "parameters")
        layers.append(layer)
    return DeepAutoencoder.unroll(layers)


def run_shapes(directory: RunDirectory) -> tuple[PretrainConfig, list[LayerShape]]:
    """Return the configuration of pre-training and the shapes of the layers.

    Raises
    ------
    CheckpointError
        The run's ``config.toml`` lacks what a run writes.
    """
    sections = directory.read_config()
    try:
        values = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in sections["pretrain"].items()
        }
        config = from_values(PretrainConfig, values)
        return config, layer_shapes(config, int(sections["data"]["n_visible"]))
    except KeyError as error:
        raise _incomplete(directory, error) from error


def check_pretrained(directory: RunDirectory) -> None:
    """Check that pre-training has come to its end.

    Raises
    ------
    CheckpointError
        It was interrupted, or a layer's checkpoint is missing.
    """
    advice = "Pre-train it: mpilayer pretrain DATA.h5 --run DIR --replace."
    if "pretrain_seconds" not in directory.read_summary():
        raise CheckpointError(
            f"{directory.path} must be pre-trained to the end; it was interrupted. "
            f"{advice}"
        )
    for index in range(len(run_shapes(directory)[1])):
        if not directory.layer_checkpoint(index).exists():
            raise CheckpointError(
                f"{directory.path} must be pre-trained; layer {index + 1} has no "
                f"checkpoint. {advice}"
            )


def is_finetuned(directory: RunDirectory) -> bool:
    """Tell whether the run has a fine-tuned stack."""
    return directory.checkpoint("finetuned").exists()


def _fill(parameters: Parameters, path: Path, group: str) -> None:
    arrays, _ = checkpoint.load(path)
    for name, view in parameters.items():
        checkpoint.fill(view, arrays, f"{group}/{name}", path)


def _incomplete(directory: RunDirectory, missing: KeyError) -> CheckpointError:
    return CheckpointError(
        f"{directory.path / 'config.toml'} must have what training wrote; {missing} is "
        "missing. Restore it, or train again."
    )
