"""The configuration: frozen dataclasses whose fields are flags, TOML keys and help.

Each field says its default, its help and its legal range once. The *effective*
configuration, defaults included, is written into every run directory.
"""

import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomli_w

from mpilayer.errors import ConfigError, unknown

TASKS = ("autoencode", "classify", "regress")
SCHEDULES = ("lockstep", "async", "greedy", "simulate", "replay:FILE")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a field with help and a legal range (for lists: of each entry)."""
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": tuple(choices),
            "least": least,
            "above": above,
            "below": below,
        },
    )


# Sections of a configuration file; the second row is what a run adds, or a whole
# experiment reads: no single command does.
_SECTIONS = (
    *("pretrain", "finetune", "classify", "regress", "sparse"),
    *("experiment", "report", "compare", "data", "launch", "created_by"),
)

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear")


@dataclass(frozen=True)
class PretrainConfig:
    """What decides pre-training."""

    layers: tuple[int, ...] = option(
        (1000, 500, 250, 30), "hidden units of each layer, first layer first", least=1
    )
    method: str = option(
        "rbm", "how a layer is trained", choices=("rbm", "autoencoder")
    )
    schedule: str = option(
        "lockstep", f"when a layer trains on which output: {', '.join(SCHEDULES)}"
    )
    lag: tuple[int, ...] = option(
        (0,), "lockstep: epochs a layer stays behind the one below it", least=0
    )
    refresh_every: int = option(
        1, "lockstep: epochs a layer spends on one output", least=1
    )
    cores: int = option(
        0, "simulate: cores of the simulated machine; 0: one a layer", least=0
    )
    costs: tuple[float, ...] = option(
        (0.0,), "simulate: time of an epoch of each layer; 0: from its size", least=0
    )
    epochs: tuple[int, ...] = option((20,), "epochs of each layer", least=1)
    extra_epochs: tuple[int, ...] = option(
        (-1,),
        "more epochs of each layer: after its last input (lockstep, greedy), after "
        "each newer one (async, simulate); -1: 0 and 1",
        least=-1,
    )
    end: str = option(
        "all",
        "async, simulate: when training ends",
        choices=("all", "first-layer"),
    )
    cut_short: bool = option(
        True, "async, simulate: a newer output ends the extra epochs of an older one"
    )
    activations: str = option(
        "streamed",
        "outputs before a layer's last stipulated epoch: 'streamed' sends what "
        "training computes anyway, 'transformed' encodes all rows after the epoch",
        choices=("streamed", "transformed"),
    )
    minibatch: int = option(100, "rows of a minibatch", least=1)
    learning_rate: tuple[float, ...] = option(
        (0.1,), "learning rate of each layer, on the mean over a minibatch", above=0
    )
    momentum: tuple[float, ...] = option(
        (0.5, 0.9), "momentum at first and later", least=0, below=1
    )
    momentum_switch: int = option(
        5, "epochs after which the later momentum holds", least=0
    )
    weight_decay: float = option(0.0, "decay λ of the weights", least=0)
    cd_steps: int = option(1, "rbm: Gibbs steps of contrastive divergence", least=1)
    initial_deviation: float = option(
        0.1, "standard deviation of the first weights", above=0
    )
    visible: str = option(
        "sigmoid",
        "units of the data: sigmoid (rbm: Bernoulli), linear (rbm: Gaussian), ...",
        choices=_ACTIVATIONS,
    )
    hidden: str = option("sigmoid", "units of the hidden layers", choices=_ACTIVATIONS)
    code: str = option("sigmoid", "units of the last layer", choices=_ACTIVATIONS)
    tied: bool = option(True, "autoencoder: decode with the transposed weights")
    loss: str = option(
        "squared",
        "autoencoder: what it minimizes",
        choices=("squared", "cross-entropy"),
    )
    seed: int = option(0, "seed of all random numbers", least=0)
    monitor_rows: int = option(
        500, "training and validation rows on which errors are measured", least=1
    )
    monitor_every: int = option(
        0,
        "epochs between two parameters of a layer that are kept, to measure the error "
        "of the whole stack over time when training has ended; 0: a fortieth of the "
        "layer's epochs; -1: none",
        least=-1,
    )

    def __post_init__(self) -> None:
        check(self)
        name, _, file = self.schedule.partition(":")
        if name not in ("lockstep", "async", "greedy", "simulate", "replay") or (
            (name == "replay") != bool(file)
        ):
            raise ConfigError(unknown("schedule", self.schedule, SCHEDULES))
        n = len(self.layers)
        for key in ("epochs", "extra_epochs", "learning_rate", "costs"):
            per_layer(key, getattr(self, key), n)
        if any(self.costs) and not all(self.costs):
            raise ConfigError(
                "costs needs a positive number for every layer, or 0 for all; got "
                f"{','.join(map(str, self.costs))}. Mend --costs."
            )
        if len(self.lag) not in (1, n - 1):
            raise ConfigError(
                f"lag needs one number, or one for each of the {n - 1} layers above "
                f"the first; got {len(self.lag)}. Give --lag G, or {n - 1} numbers."
            )
        if len(self.momentum) != 2:
            raise ConfigError(
                f"momentum needs two numbers, at first and later; got "
                f"{len(self.momentum)}. Give for example --momentum 0.5,0.9."
            )

    @property
    def stipulated_epochs(self) -> tuple[int, ...]:
        """Epochs of each layer."""
        return per_layer("epochs", self.epochs, len(self.layers))

    @property
    def epoch_costs(self) -> tuple[float, ...]:
        """Cost of an epoch of each layer in the simulation, 0 for that of its size."""
        return per_layer("costs", self.costs, len(self.layers))

    @property
    def extra(self) -> tuple[int, ...]:
        """Extra epochs of each layer, −1 replaced by the schedule's default."""
        per_output = self.schedule in ("async", "simulate")
        values = per_layer("extra_epochs", self.extra_epochs, len(self.layers))
        defaults = [int(per_output and layer > 0) for layer in range(len(values))]
        return tuple(
            given if given >= 0 else usual
            for given, usual in zip(values, defaults, strict=True)
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """What decides fine-tuning."""

    task: str = option(
        "autoencode",
        "autoencode: reconstruct the data; classify: a softmax layer on the encoder "
        "learns the labels; regress: a linear one learns them as numbers",
        choices=TASKS,
    )
    epochs: int = option(10, "epochs at most", least=0)
    optimizer: str = option(
        "sgd",
        "sgd: on the summed gradient, as in the paper; momentum: likewise, 0.9; adam",
        choices=("sgd", "momentum", "adam"),
    )
    learning_rate: float = option(
        0.0, "learning rate; 0: the optimizer's usual one", least=0
    )
    learning_rate_decay: float = option(
        1.0, "factor on the learning rate after each epoch", above=0
    )
    loss: str = option(
        "squared",
        "autoencode: what is minimized; classify: always cross entropy",
        choices=("squared", "cross-entropy"),
    )
    weight_decay: float = option(
        0.0,
        "decay λ: each step takes learning rate · λ of the weights away",
        least=0,
    )
    dropout: float = option(
        0.0, "part of the hidden units that each row leaves out", least=0, below=1
    )
    input_dropout: float = option(
        0.0, "part of the data's columns that each row leaves out", least=0, below=1
    )
    from_scratch: bool = option(
        False, "begin with random weights, not with the pre-trained ones"
    )
    minibatch: int = option(100, "rows of a minibatch, over all ranks", least=1)
    patience: int = option(
        0,
        "stop after so many epochs without a better validation error; 0: never",
        least=0,
    )
    seed: int = option(0, "seed of all random numbers", least=0)

    def __post_init__(self) -> None:
        check(self)
        if self.learning_rate_decay > 1:
            raise ConfigError(
                "learning_rate_decay must be at most 1; got "
                f"{self.learning_rate_decay}. Change --learning-rate-decay."
            )
        if self.task == "regress" and self.loss != "squared":
            raise ConfigError(
                f"regress minimizes the squared error; got {self.loss}. Leave --loss "
                "out."
            )


@dataclass(frozen=True)
class SparseConfig:
    """What decides the training of a sparse autoencoder; by default as Lahiri et al."""

    preset: str = option(
        "paper",
        "other settings' defaults: those of Lahiri et al. 2010, for whitened images, "
        "or of the UFLDL tutorial, for data from 0.1 to 0.9",
        choices=("paper", "ufldl"),
    )
    hidden: int = option(30, "hidden units", least=1)
    kl: str = option(
        "average",
        "sparsity term: 'average' over the ranks, each with its own rows; 'exact', "
        "by a second Allreduce; 'exact-fused', by a longer one",
        choices=("average", "exact", "exact-fused"),
    )
    optimizer: str = option(
        "lbfgs",
        "lbfgs; cg: nonlinear conjugate gradients; sgd: descent on minibatches, an "
        "evaluation after each pass",
        choices=("lbfgs", "cg", "sgd"),
    )
    evaluations: int = option(500, "evaluations of the cost at most", least=1)
    iterations: int = option(0, "iterations at most; 0: any number", least=0)
    gradient_norm: float = option(0.0, "stop at so small a gradient", least=0)
    decrease: float = option(
        0.0,
        "stop when an iteration lowers the cost by less than this part of it",
        least=0,
    )
    weight_decay: float = option(0.002, "decay λ_W of the weights", least=0)
    sparsity_weight: float = option(4.0, "weight λ_ρ of the sparsity term", least=0)
    sparsity_target: float = option(
        0.002, "firing probability ρ that each unit should have", above=0, below=1
    )
    activation: str = option("tanh", "hidden units", choices=("tanh", "sigmoid"))
    output: str = option(
        "same",
        "units of the reconstruction; same: as the hidden ones",
        choices=("same", "tanh", "sigmoid", "linear"),
    )
    dtype: str = option(
        "float32",
        "of data and matrix products; sums and weights are float64 always",
        choices=("float32", "float64"),
    )
    initial: str = option(
        "positive",
        "first weights: 'positive', uniform from 0 to 1/√inputs; 'symmetric', uniform "
        "within ±√(6/(visible + hidden + 1))",
        choices=("positive", "symmetric"),
    )
    corrections: int = option(
        40,
        "lbfgs: remembered pairs; the paper has 10 and needs more evaluations",
        least=1,
    )
    minibatch: int = option(100, "sgd: rows of a minibatch, over all ranks", least=1)
    learning_rate: float = option(
        0.05, "sgd: learning rate, on the mean over a minibatch", above=0
    )
    memory: float = option(
        0.999,
        "sgd: what each row leaves of the running mean of the activations",
        least=0,
        below=1,
    )
    seed: int = option(0, "seed of all random numbers", least=0)

    def __post_init__(self) -> None:
        check(self)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "ufldl": {
        "hidden": 25,
        "weight_decay": 1e-4,
        "sparsity_weight": 3.0,
        "sparsity_target": 0.01,
        "activation": "sigmoid",
        "initial": "symmetric",
    },
}
"""What a preset of ``SparseConfig`` puts in the place of the defaults."""


STEPS = ("data", "pretrain", "finetune", "sparse", "compare", "evaluate", "report")
"""Steps of an experiment, in their order."""


@dataclass(frozen=True)
class ExperimentConfig:
    """What ``mpilayer run`` does besides training."""

    name: str = option("", "what to call it; empty: as the file")
    run: str = option("", "directory of all results; empty: runs/NAME")
    steps: tuple[str, ...] = option(
        ("auto",),
        "what to do, in this order; auto: what has a section, then evaluate, report",
        choices=("auto", *STEPS),
    )
    split: str = option(
        "test",
        "rows to evaluate on; the training rows where the data have no such split",
        choices=("train", "validation", "test"),
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DataConfig:
    """The data set of an experiment, and how it is made if it is not there."""

    path: str = option("", "the data set; empty: data.h5 beside the results")
    source: str = option("", "what to make it from, if it is not there; empty: nothing")
    make: str = option(
        "prepare",
        "how: 'prepare' from files of samples, 'patches' of images",
        choices=("prepare", "patches"),
    )
    validation: int = option(0, "rows to set apart, or further patches", least=0)
    seed: int = option(0, "chooses the validation rows, or the patches", least=0)
    name: str = option("", "what to call it; empty: as the source")
    count: int = option(100_000, "patches: training patches to draw", least=1)
    size: int = option(8, "patches: height and width in pixels", least=1)
    whiten: bool = option(False, "patches: flatten the images' spectrum first")
    range: str = option("raw", "patches: raw, or LOW,HIGH to scale to")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ReportConfig:
    """The report of an experiment."""

    file: str = option("report.html", "its name, beside the results")

    def __post_init__(self) -> None:
        check(self)


Config = TypeVar(
    "Config",
    PretrainConfig,
    FinetuneConfig,
    SparseConfig,
    ExperimentConfig,
    DataConfig,
    ReportConfig,
)
Value = TypeVar("Value")


def per_layer(name: str, values: tuple[Value, ...], n_layers: int) -> tuple[Value, ...]:
    """Return one value a layer; a single value holds for all.

    Raises
    ------
    ConfigError
        Neither one value nor one a layer.
    """
    if len(values) == 1:
        return values * n_layers
    if len(values) != n_layers:
        raise ConfigError(
            f"{name} needs one number, or one for each of the {n_layers} layers; got "
            f"{len(values)}. Give 1 or {n_layers} numbers."
        )
    return values


def flag(name: str) -> str:
    """Return the command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def value_from_text(type_: Any, text: str) -> Any:
    """Return a field's value from the command line's text.

    Raises
    ------
    ValueError
        The text is no such value.
    """
    if get_origin(type_) is tuple:
        entry = get_args(type_)[0]
        return tuple(entry(part) for part in text.split(","))
    return type_(text)


def check(config: Any) -> None:
    """Check the type and range of every field.

    Raises
    ------
    ConfigError
        Names the field, the range and what was found.
    """
    types = get_type_hints(type(config))
    for item in fields(config):
        value = getattr(config, item.name)
        is_list = get_origin(types[item.name]) is tuple
        entry_type = get_args(types[item.name])[0] if is_list else types[item.name]
        entries = value if is_list else (value,)
        if is_list and not (isinstance(value, tuple) and value):
            raise ConfigError(f"{item.name} must be a list of numbers; got {value!r}.")
        for entry in entries:
            _check_entry(item, entry_type, entry)


def _check_entry(item: Field[Any], type_: type, value: Any) -> None:
    if type(value) is not type_:
        raise ConfigError(
            f"{item.name} must be of type {type_.__name__}; got {value!r}. "
            f"See {flag(item.name)} in --help."
        )
    limits = item.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(unknown(item.name, str(value), limits["choices"]))
    rules: list[tuple[float | None, str, Callable[[float, float], bool]]] = [
        (limits["least"], "at least", operator.ge),
        (limits["above"], "greater than", operator.gt),
        (limits["below"], "less than", operator.lt),
    ]
    for bound, words, holds in rules:
        if bound is not None and not holds(value, bound):  # type: ignore[arg-type]
            raise ConfigError(
                f"{item.name} must be {words} {bound}; got {value}. "
                f"Change {flag(item.name)}."
            )


def read_toml(path: Path, section: str) -> dict[str, Any]:
    """Return one section of a configuration file, lists as tuples.

    Raises
    ------
    ConfigError
        The file is missing or no TOML, or has a section or key that nothing reads.
    """
    return read_sections(path).get(section, {})


def read_sections(
    path: Path, legal: Sequence[str] = _SECTIONS
) -> dict[str, dict[str, Any]]:
    """Return all sections of a configuration file, lists as tuples.

    Raises
    ------
    ConfigError
        The file is missing or no TOML, or has a section that is not legal.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path} must be a readable file; {error.strerror}. Give another --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML; {error}. Mend the file.") from error
    for section, values in content.items():
        if section not in legal:
            raise ConfigError(f"{path}: {unknown('section', section, legal)}")
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: {section} must be a table; found {values!r}. Write "
                f"[{section}]."
            )
    return {
        section: {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for section, values in content.items()
    }


def from_values(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Return a configuration from values by name; scalars serve as lists of one.

    Raises
    ------
    ConfigError
        A wrong name (answered with the legal ones), type or range.
    """
    types = get_type_hints(cls)
    for name in values:
        if name not in types:
            raise ConfigError(unknown("key", name, types))
    values = {**PRESETS.get(str(values.get("preset")), {}), **values}
    converted = {name: _as_type(types[name], value) for name, value in values.items()}
    return cls(**converted)


def _as_type(type_: Any, value: Any) -> Any:
    """Return a value as its field has it: a list for a scalar, a float for an int."""
    if get_origin(type_) is tuple:
        entries = value if isinstance(value, tuple) else (value,)
        return tuple(_as_type(get_args(type_)[0], entry) for entry in entries)
    return float(value) if type_ is float and type(value) is int else value


def as_values(config: Any) -> dict[str, Any]:
    """Return all fields by name, tuples as lists: what TOML and JSON can hold."""
    return {
        item.name: list(value) if isinstance(value, tuple) else value
        for item in fields(config)
        for value in (getattr(config, item.name),)
    }


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sections as TOML text."""
    return tomli_w.dumps({name: dict(values) for name, values in sections.items()})
