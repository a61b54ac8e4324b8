"""What decides pre-training and fine-tuning."""

import re
from dataclasses import dataclass

from mpilayer.config.fields import (
    MEMORY,
    FieldError,
    Settings,
    of_others,
    option,
    per_layer,
)
from mpilayer.errors import unknown

TASKS = ("autoencode", "classify", "regress")
COURSES = ("constant", "exponential", "cosine", "linear")
SCHEDULES = ("lockstep", "async", "greedy", "simulate", "replay:FILE")
_SHIFT = re.compile(r"shift:(\d{1,4})(?::([1-9]\d{0,4})x([1-9]\d{0,4}))?", re.ASCII)
_ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear")


@dataclass(frozen=True)
class PretrainConfig(Settings):
    """What decides pre-training."""

    layers: tuple[int, ...] = option(
        (1000, 500, 250, 30), "hidden units of each layer, first layer first", least=1
    )
    method: str = option(
        "rbm", "how a layer is trained", choices=("rbm", "autoencoder")
    )
    schedule: str = option(
        "lockstep",
        f"when a layer trains on which output: {', '.join(SCHEDULES)}. async is the "
        "method of Santara et al., simulate the same on another machine; lockstep is "
        "our deterministic variant",
        metavar="NAME",
    )
    lag: tuple[int, ...] = option(
        (0,), "epochs a layer stays behind the one below it", least=0, of="lockstep"
    )
    refresh_every: int = option(
        1, "epochs a layer spends on one output", least=1, of="lockstep"
    )
    cores: int = option(
        0, "cores of the simulated machine; 0: one a layer", least=0, of="simulate"
    )
    costs: tuple[float, ...] = option(
        (0.0,),
        "time of an epoch of each layer; 0: from its size",
        least=0,
        of="simulate",
    )
    epochs: tuple[int, ...] = option((20,), "epochs of each layer", least=1)
    extra_epochs: tuple[int, ...] = option(
        (-1,),
        "more epochs of each layer: after its last input (lockstep, greedy), after "
        "each newer one (async, simulate); -1: 0 and 1",
        least=-1,
    )
    end: str = option(
        "stipulated",
        "async, simulate: when training ends: when all layers have done their "
        "stipulated epochs, as Santara et al.; when no layer has anything left to do; "
        "when the first layer has done its epochs",
        choices=("stipulated", "all", "first-layer"),
    )
    cut_short: bool = option(
        True, "async, simulate: a newer output ends the extra epochs of an older one"
    )
    activations: str = option(
        "auto",
        "what a layer passes on: 'transformed' encodes all rows after the epoch, as "
        "Santara et al.; 'streamed' sends, before its last stipulated epoch, what "
        "training computes anyway; auto: transformed for async and simulate, as "
        "recorded for replay, else streamed",
        choices=("auto", "streamed", "transformed"),
    )
    minibatch: int = option(100, "rows of a minibatch", least=1)
    slices: tuple[int, ...] = option(
        (0,),
        "slices into which the hidden units of each layer are cut, of 64 units or "
        "more: so many ranks can share it, and its arithmetic depends on them; 0: one "
        "for each rank that the layer has at the start",
        least=0,
    )
    layout: str = option(
        "auto",
        "which ranks train which layers, such as '1:4 2:3 3-4:1' (layers: ranks); "
        "auto: layers in turn, more ranks where more is to do. It changes no result",
        metavar="LAYERS:RANKS",
        harmless=True,
    )
    memory: str = MEMORY
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
        harmless=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, file = self.schedule.partition(":")
        legal = [schedule.partition(":")[0] for schedule in SCHEDULES]
        if name not in legal or (name == "replay") != bool(file):
            words = unknown("schedule", self.schedule, SCHEDULES)
            raise FieldError(words, "schedule")
        n = len(self.layers)
        for key in ("epochs", "extra_epochs", "learning_rate", "costs", "slices"):
            per_layer(key, getattr(self, key), n)
        if any(self.costs) and not all(self.costs):
            found = ",".join(map(str, self.costs))
            words = "needs a positive number for every layer, or 0 for all; got"
            raise FieldError.of("costs", f"{words} {found}. Change costs.")
        if len(self.lag) not in (1, n - 1):
            each, other = "", ""
            if n > 2:
                each = f", or one for each of the {n - 1} layers above the first"
                other = f" or {n - 1}"
            words = f"needs one number{each}; got {len(self.lag)}. Give 1{other}."
            raise FieldError.of("lag", words)
        if len(self.momentum) != 2:
            words = f"needs two numbers, at first and later; got {len(self.momentum)}."
            raise FieldError.of("momentum", f"{words} Give two, such as 0.5 and 0.9.")
        for key, item in of_others(PretrainConfig, name).items():
            if getattr(self, key) != item.default:
                words = f"belongs to the schedule {item.of}; the schedule is {name}."
                advice = f"Leave {key} out, or choose {item.of}."
                raise FieldError.of(key, f"{words} {advice}")

    @property
    def stipulated_epochs(self) -> tuple[int, ...]:
        """Epochs of each layer."""
        return per_layer("epochs", self.epochs, len(self.layers))

    @property
    def slices_of_layers(self) -> tuple[int, ...]:
        """Slices of each layer, 0 where the ranks decide."""
        return per_layer("slices", self.slices, len(self.layers))

    @property
    def epoch_costs(self) -> tuple[float, ...]:
        """Cost of an epoch of each layer in the simulation, 0 for that of its size."""
        return per_layer("costs", self.costs, len(self.layers))

    @property
    def extra(self) -> tuple[int, ...]:
        """Extra epochs of each layer, −1 replaced by the schedule's default."""
        per_output = self.schedule in ("async", "simulate")
        values = per_layer("extra_epochs", self.extra_epochs, len(self.layers))
        return tuple(
            int(per_output and layer > 0) if given < 0 else given
            for layer, given in enumerate(values)
        )


@dataclass(frozen=True)
class FinetuneConfig(Settings):
    """What decides fine-tuning."""

    task: str = option(
        "autoencode",
        "autoencode: reconstruct the data; classify: a softmax layer on the encoder "
        "learns the labels; regress: a linear one learns them as numbers",
        choices=TASKS,
    )
    epochs: int = option(20, "epochs at most", least=0)
    optimizer: str = option(
        "adam",
        "adam; sgd: on the summed gradient, our reading of Santara et al.; momentum: "
        "likewise, 0.9",
        choices=("sgd", "momentum", "adam"),
    )
    learning_rate: float = option(
        0.0, "learning rate; 0: the optimizer's usual one", least=0
    )
    learning_rate_decay: float = option(
        1.0, "factor on the learning rate after each epoch", above=0, most=1
    )
    learning_rate_schedule: str = option(
        "constant",
        "course of the learning rate: constant; exponential: by --learning-rate-decay, "
        "and so if that is below 1; cosine, linear: to 0 at the last of the epochs",
        choices=COURSES,
        metavar="NAME",
    )
    warm_up: int = option(
        0, "first epochs, in which the learning rate rises from 0 linearly", least=0
    )
    augment: str = option(
        "none",
        "shift:N: move images by up to N pixels each way, anew in each minibatch; "
        "shift:N:HxW says how high and wide images are that are not square",
        metavar="none|shift:N",
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
    minibatch: int = option(20, "rows of a minibatch, over all ranks", least=1)
    parallel: str = option(
        "auto",
        "what the ranks of a host share: 'units', with the same weights for any number "
        "of ranks; 'rows' of a minibatch, with weights that agree to rounding; auto: "
        "rows if a minibatch has 1000 of them",
        choices=("auto", "units", "rows"),
    )
    slices: int = option(
        0,
        "units: into how many slices a layer's are cut, for so many ranks at most; "
        "weights depend on it, to rounding; 0: 4, if layers are wide enough",
        least=0,
    )
    memory: str = MEMORY
    patience: int = option(
        0,
        "stop after so many epochs without a better validation error; 0: never",
        least=0,
    )
    seed: int = option(0, "seed of all random numbers", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "regress" and self.loss != "squared":
            words = f"regress minimizes the squared error; got {self.loss}."
            raise FieldError(f"{words} Leave loss out.", "loss")
        self._check_course()
        if self.augment != "none" and not self.shift:
            words = "must be none, or shift:N or shift:N:HxW with N from 1 on;"
            found = f"got {self.augment!r}. Give shift:1, for instance."
            raise FieldError.of("augment", f"{words} {found}")

    def _check_course(self) -> None:
        name, decay = "learning_rate_schedule", self.learning_rate_decay
        if self.learning_rate_schedule == "constant" and decay < 1:
            # The factor alone says so, in files of former versions, too.
            object.__setattr__(self, name, "exponential")
        schedule, warm_up = self.learning_rate_schedule, self.warm_up
        if schedule == "exponential" and decay == 1:
            words = "exponential needs a learning_rate_decay below 1; got 1."
            raise FieldError.of(name, f"{words} Give one, such as 0.95.")
        if schedule != "exponential" and decay < 1:
            words = f"must be 1 where the schedule of the rate is {schedule};"
            found = f"got {decay}. Leave one of the two out."
            raise FieldError.of("learning_rate_decay", f"{words} {found}")
        if 0 < self.epochs <= warm_up:
            words = f"must be less than the epochs, {self.epochs}; got {warm_up}."
            raise FieldError.of("warm_up", f"{words} Give fewer, or more epochs.")

    @property
    def shift(self) -> tuple[int, int, int] | None:
        """Pixels by which images move at most; their height and width, 0 if not said.

        None if they do not move.
        """
        found = _SHIFT.fullmatch(self.augment)
        most, height, width = map(int, found.groups("0")) if found else (0, 0, 0)
        return (most, height, width) if most else None
