"""Ways of training that torture knows, and the table of what has become of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Mode:
    """A way of training.

    Attributes
    ----------
    name : str
        In the table.
    command : str
        Of mpilayer.
    arguments : tuple of str
        After the data set or run.
    amount : int
        Epochs, passes or evaluations.
    ranks : str
        ``same`` in all launches; ``any``, with the same bits; ``rounding``: any, and
        weights differ by rounding.
    recorded : bool
        The run itself is not repeatable, but its replay is.
    least : int
        Ranks of a launch that has several.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    amount: int
    ranks: str = "same"
    recorded: bool = False
    least: int = 2

    def line(self, data: Path, run: Path, scale: float) -> list[str]:
        """Return the command line that begins a run."""
        where = [str(run)] if self.command == "finetune" else [str(data), "--run", run]
        count = "--evaluations" if self.command == "sparse" else "--epochs"
        amount = max(3, round(self.amount * scale))
        return [self.command, *map(str, where), *self.arguments, count, str(amount)]


def _modes() -> dict[str, Mode]:
    stack = ("--layers", "64,32,16")
    pre = ("--checkpoint-every", "1")
    slow = ("--checkpoint-every", "2")
    rows = ("--minibatch", "100")
    cut = ("--layers", "130,128", "--slices", "2,2")
    # Else as many as ranks that begin, which may be others than were killed before.
    shards = ("--shards", "2")
    sgd = ("--optimizer", "sgd", "--measure-every", "0", "--minibatch", "100")
    found = [
        Mode("lockstep, lag 0", "pretrain", (*stack, *pre), 70),
        Mode("lockstep, lag 2", "pretrain", (*stack, *slow, "--lag", "2"), 70, "any"),
        Mode("teams", "pretrain", (*cut, *pre), 20, "any", least=4),
        Mode("greedy", "pretrain", (*stack, *pre, "--schedule", "greedy"), 60, "any"),
        Mode(
            "async, and its replay",
            "pretrain",
            (*stack, *pre, "--schedule", "async"),
            60,
            recorded=True,
        ),
        Mode("fine-tuning, adam", "finetune", (*pre, *rows, "--optimizer", "adam"), 18),
        Mode(
            "fine-tuning, momentum",
            "finetune",
            (*slow, *rows, "--optimizer", "momentum"),
            18,
        ),
        Mode("sparse, lbfgs, exact", "sparse", (*slow, "--kl", "exact"), 350, "any"),
        Mode(
            "sparse, cg, average",
            "sparse",
            (*pre, *shards, "--optimizer", "cg"),
            300,
            "any",
        ),
        Mode("sparse, sgd", "sparse", (*pre, *shards, *sgd), 120, "any"),
        Mode(
            "fine-tuning, adam, other ranks",
            "finetune",
            (*pre, *rows, "--optimizer", "adam"),
            18,
            "any",
        ),
    ]
    return {mode.name: mode for mode in found}


MODES = _modes()


@dataclass
class Row:
    """A line of the table."""

    mode: str
    launches: int = 0
    kills: int = 0
    in_a_write: int = 0
    of_one_rank: int = 0
    told: int = 0
    at_a_step: int = 0
    runs: int = 0
    lost_runs: int = 0
    differences: int = 0
    hangs: int = 0
    late_ends: int = 0
    seconds: float = 0.0
    slowest_end: float = 0.0
    unfinished_files: int = 0
    most_lost: int = 0
    rounding: float = 0.0
    remarks: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """Tell whether nothing was wrong."""
        return not (self.lost_runs or self.differences or self.hangs or self.late_ends)


_COLUMNS = {
    "mode": "mode",
    "runs": "runs",
    "launches": "launches",
    "kills": "kills",
    "in_a_write": "left half a checkpoint",
    "of_one_rank": "of one rank",
    "lost_runs": "lost runs",
    "differences": "differences",
    "most_lost": "most done again",
    "hangs": "hangs",
    "seconds": "seconds",
}


def show(rows: Sequence[Row]) -> str:
    """Return the table, in Markdown, with the sums."""
    total = Row("all")
    for name in list(_COLUMNS)[1:]:
        combine = max if name == "most_lost" else sum
        setattr(total, name, combine(getattr(row, name) for row in rows))
    lines = [f"| {' | '.join(_COLUMNS.values())} |", "|---" * len(_COLUMNS) + "|"]
    for row in (*rows, total):
        cells = [getattr(row, name) for name in _COLUMNS]
        texts = [f"{c:.0f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)
