"""What decides the training of a sparse autoencoder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpilayer.config.fields import FieldError, Settings, of_others, option


@dataclass(frozen=True)
class SparseConfig(Settings):
    """What decides a sparse autoencoder; its cost by default as Lahiri et al."""

    preset: str = option(
        "paper",
        "other settings' defaults: those of Lahiri et al. 2010, for whitened images, "
        "or of the UFLDL tutorial, for data from 0.1 to 0.9",
        choices=("paper", "ufldl"),
    )
    hidden: int = option(30, "hidden units", least=1)
    kl: str = option(
        "average",
        "sparsity term: 'average' over shards, each with its own rows; 'exact', that "
        "of all rows; 'exact-fused' likewise, by one longer Allreduce",
        choices=("average", "exact", "exact-fused"),
    )
    shards: int = option(
        0,
        "--kl average: contiguous parts of the rows over which the sparsity term is "
        "averaged; a part of what is minimized. 0: as many as ranks, at the start",
        least=0,
    )
    optimizer: str = option(
        "lbfgs",
        "lbfgs; cg: nonlinear conjugate gradients; sgd: descent on minibatches, as "
        "long as --evaluations and --measure-every say",
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
        "usual",
        "first weights: 'positive', uniform from 0 to 1/√inputs, usual but with sgd; "
        "'symmetric', uniform within ±√(6/(visible + hidden + 1))",
        choices=("usual", "positive", "symmetric"),
    )
    corrections: int = option(
        40,
        "remembered pairs; Lahiri et al. have 10 and need more evaluations",
        least=1,
        of="lbfgs",
    )
    minibatch: int = option(
        20, "rows of a minibatch, over all ranks; the paper has 1", least=1, of="sgd"
    )
    learning_rate: float = option(
        0.1,
        "first learning rate, on the mean over a minibatch; it falls linearly to "
        "0; for single examples take 0.005",
        above=0,
        of="sgd",
    )
    measure_every: int = option(
        8000,
        "rows met between two evaluations of the whole cost; 0: a pass. The first "
        "evaluation is at the start, so there are (evaluations − 1) times as many rows "
        "in all: by default 4 million, as in the paper",
        least=0,
        of="sgd",
    )
    sgd_sparsity: str = option(
        "gradient",
        "how the running mean of the activations makes units sparse: by the "
        "'gradient' of the sparsity term there; by the paper's update of the hidden "
        "'bias' alone, which ends at a higher cost",
        choices=("bias", "gradient"),
        of="sgd",
    )
    sgd_bias_weight: float = option(
        4.0, "weight β of the update by --sgd-sparsity bias", of="sgd", least=0
    )
    memory: float = option(
        0.999,
        "what each row leaves of the running mean of the activations",
        least=0,
        below=1,
        of="sgd",
    )
    seed: int = option(0, "seed of all random numbers", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "sgd" and 0 < self.measure_every < self.minibatch:
            words = f"must be 0, or at least the rows of a minibatch, {self.minibatch};"
            found = f"got {self.measure_every}. Change measure_every."
            raise FieldError.of("measure_every", f"{words} {found}")

    def resolved(self) -> "SparseConfig":
        """Return these settings with the defaults that depend on others filled in."""
        usual = "symmetric" if self.optimizer == "sgd" else "positive"
        return replace(
            self,
            output=self.activation if self.output == "same" else self.output,
            initial=usual if self.initial == "usual" else self.initial,
        )

    @property
    def unused(self) -> frozenset[str]:
        """Settings that the optimizer does not read."""
        return frozenset(of_others(SparseConfig, self.optimizer))


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
