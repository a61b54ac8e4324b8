"""What a report shows of deep runs: each by itself, and all together."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mpilayer.report.curves import finetuning_curves, stack_curves
from mpilayer.report.html import (
    Markup,
    Part,
    Section,
    element,
    facts,
    note,
    paragraph,
    table,
)
from mpilayer.report.images import code_space, first_layer, reconstructions
from mpilayer.report.labels import confusion, predictions
from mpilayer.report.layers import space_time, times_table
from mpilayer.report.run import Run, mapping, number
from mpilayer.report.words import (
    ERROR,
    NOTHING,
    at,
    digits,
    ranks,
    schedule,
    seconds,
    settings,
    short,
    state,
)

PAPER = "Santara et al. 2016"
"""Full MNIST, 784-1000-500-250-30, on 4 threads: Tables 2 and 3."""
_PAPER_ERRORS = {"greedy": (8.00, 8.19), "synchronized (async)": (8.39, 8.57)}
_PAPER_SECONDS = {"greedy": 11_683, "synchronized (async)": 6_551}
_SPLITS = ("train", "validation", "test")


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the sections on deep runs, none without any."""
    if not runs:
        return []
    return [together(runs), *(alone(run) for run in runs)]


def together(runs: Sequence[Run]) -> Section:
    """Return the section that sets all deep runs beside one another."""
    parts: list[Part] = [
        paragraph(
            "Layers are trained one by one or all at once, the stack is unrolled, then "
            f"fine-tuned as a whole. The method of {PAPER} is the schedule async, and "
            "simulate of it; lockstep is mpilayer's own variant."
        ),
        errors_table(runs),
        pretraining_table(runs),
        *stack_curves(runs),
        *finetuning_curves(runs),
        *predictions(runs),
        *reconstructions(runs, "reconstructions"),
    ]
    return Section("deep", "Deep autoencoders", tuple(parts))


def alone(run: Run) -> Section:
    """Return the section on one run."""
    name = run.place
    parts: list[Part] = [
        paragraph(element("b", settings(run)), f". State: {state(run)}."),
        _highlights(run),
        *_remarks(run),
        *space_time(run, name),
        *times_table(run),
        *first_layer(run, name),
        *code_space(run, name),
        *confusion(run),
    ]
    return Section(f"run-{name}", f"Run {run.name}", tuple(parts), within=True)


def _remarks(run: Run) -> Iterator[Markup]:
    """Yield what a reader must know first."""
    for remark in (*run.remarks, run.summary.get("short_of_epochs")):
        if remark:
            yield note(str(remark))


def errors_table(runs: Sequence[Run]) -> Markup:
    """Return the errors of PCA, pre-trained and fine-tuned stacks; the paper's beside.

    Table 2 of Santara et al. 2016.
    """
    kinds = {
        "PCA, as many components": "pca",
        "pre-trained": "pretrained",
        "fine-tuned": "finetuned",
    }
    pca = [_cells(run.summary.get("pca")) for run in runs]
    rows = []
    if len(runs) > 1 and pca[0] != [NOTHING] * len(_SPLITS) and _are_equal(pca):
        # The same data and as many code units: once is enough.
        rows.append(["all runs: PCA, as many components", *pca[0]])
        del kinds["PCA, as many components"]
    for run in runs:
        for kind, key in kinds.items():
            errors = run.summary.get(key)
            if errors or key == "pretrained":
                rows.append([f"{run.name}: {kind}", *_cells(errors)])
    n_ours = len(rows)
    for kind, (train, test) in _PAPER_ERRORS.items():
        rows.append([f"{PAPER}: {kind}", digits(train), NOTHING, digits(test)])
    return table(
        f"Reconstruction error ({ERROR}). The paper's rows, in italics, are of the "
        "full MNIST with 784-1000-500-250-30, after fine-tuning; its data and settings "
        "may differ from those of the runs.",
        ("", *_SPLITS),
        rows,
        range(n_ours, len(rows)),
    )


def _cells(errors: Any) -> list[str]:
    return [digits(mapping(errors).get(split)) for split in _SPLITS]


def _are_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def pretraining_table(runs: Sequence[Run]) -> Markup:
    """Return how long pre-training took, beside Table 3 of Santara et al. 2016."""
    rows = []
    for run in runs:
        took = number(run.summary.get("pretrain_seconds"))
        virtual = number(run.summary.get("simulated_seconds"))
        simulated = run.section("pretrain").get("schedule") == "simulate"
        compared, label = (virtual, "× (simulated)") if simulated else (took, "×")
        greedy = _greedy_seconds(run, runs)
        rows.append(
            [
                run.name,
                schedule(run),
                ranks(run.summary) or NOTHING,
                digits(took, 1),
                digits(virtual, 1),
                f"{greedy / compared:.2f} {label}"
                if greedy > 0 < compared
                else NOTHING,
            ]
        )
    n_ours = len(rows)
    base = _PAPER_SECONDS["greedy"]
    for kind, took in _PAPER_SECONDS.items():
        cells = [kind, "4 threads", f"{took:,}", NOTHING, f"{base / took:.3f} ×"]
        rows.append([PAPER, *cells])
    return table(
        "Pre-training in seconds. Simulated: what the same table of epochs would take "
        "with a core for each layer. The last column compares the measured seconds, of "
        "a simulated schedule the simulated ones, with those of a greedy run of the "
        "same layers, epochs, minibatches and data in this report.",
        (
            "",
            "schedule",
            "ranks",
            "measured, s",
            "simulated, s",
            "speed against greedy",
        ),
        rows,
        range(n_ours, len(rows)),
    )


def _highlights(run: Run) -> Markup:
    summary = run.summary
    pairs = {
        "test error": digits(summary.get("test_error")),
        "PCA error, test": digits(at(summary, "pca", "test")),
        "pre-training": seconds(summary.get("pretrain_seconds")),
        "fine-tuning": seconds(summary.get("finetune_seconds")),
        "ranks, pre-training": short(summary.get("ranks"), ".0f"),
        "wrong classes, test": _percent(at(summary, "classify_error", "test")),
        "squared error of labels, test": digits(at(summary, "regress_error", "test")),
    }
    return facts((k, v) for k, v in pairs.items() if v != NOTHING)


def _percent(value: Any) -> str:
    shown = digits(value)
    return shown if shown == NOTHING else f"{shown} %"


def _greedy_seconds(run: Run, runs: Sequence[Run]) -> float:
    """Return the seconds of the greedy run that a run can be compared with."""
    for other in runs:
        is_greedy = other.section("pretrain").get("schedule") == "greedy"
        if is_greedy and _comparable(other) == _comparable(run):
            return number(other.summary.get("pretrain_seconds"))
    return math.nan


def _comparable(run: Run) -> tuple[Any, ...]:
    config = run.section("pretrain")
    keys = ("layers", "epochs", "minibatch", "method")
    return (run.section("data").get("digest"), *(str(config.get(k)) for k in keys))
