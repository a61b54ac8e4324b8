"""What a report shows of deep runs: each by itself, and all together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, pairwise
from typing import Any

from mpilayer.config import PretrainConfig, from_values
from mpilayer.errors import ConfigError
from mpilayer.papers import (
    SANTARA,
    SANTARA_EPOCHS,
    SANTARA_ERRORS,
    SANTARA_EXTRA,
    SANTARA_LAYERS,
    SANTARA_SECONDS,
)
from mpilayer.report.curves import finetuning_curves, stack_curves
from mpilayer.report.html import (
    Markup,
    Part,
    Section,
    facts,
    note,
    paragraph,
    table,
)
from mpilayer.report.images import code_space, first_layer, reconstructions
from mpilayer.report.labels import predictions
from mpilayer.report.layers import space_time, times_table
from mpilayer.report.run import Run, listing, mapping, number
from mpilayer.report.words import (
    ERROR,
    NOTHING,
    at,
    digits,
    label_error,
    percent,
    ranks,
    schedule,
    seconds,
    short,
    widths,
)

_MOST_PARTS = 8
_CROWDED = (
    " Where there were more BLAS threads than cores, or that is not recorded, "
    "simulated seconds are left out: ranks that hold one another up tell nothing of a "
    "core for each."
)
_PRETRAINING = {
    "simulated, s": (
        " Simulated: how long the same epochs would take if each layer had a core to "
        "itself."
    ),
    "speed against greedy": (
        " Speed: how many times as fast as the run of this report that trained the "
        "same layers on the same data one by one (schedule greedy), with as many "
        "epochs and the same minibatches; of the schedule simulate by its simulated "
        "seconds."
    ),
}
"""Columns that may be empty, and what they are."""
_LEAST_SIMULATED = 0.05
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
            f"fine-tuned as a whole. The schedule async is the method of {SANTARA}, "
            "simulate says what it would do on other machines; lockstep is mpilayer's "
            "own variant."
        ),
        architecture_table(runs),
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
        _highlights(run),
        *_remarks(run),
        *space_time(run, name),
        *times_table(run),
        *first_layer(run, name),
        *code_space(run, name),
    ]
    return Section(f"run-{name}", f"Run {run.name}", tuple(parts), within=True)


def _remarks(run: Run) -> Iterator[Markup]:
    """Yield what a reader must know first."""
    yield from (note(remark) for remark in run.remarks)
    warnings = ("short_of_epochs", "worse_than_pca")
    for key in (*warnings, "classify_no_better", "regress_no_better"):
        if words := run.summary.get(key):
            yield note(f"Warning: {words}")


def _like_the_papers(runs: Sequence[Run]) -> bool:
    """Tell whether there are runs on images of MNIST's size: others have no equal."""
    return any(run.n_visible == SANTARA_LAYERS[0] for run in runs)


def architecture_table(runs: Sequence[Run]) -> Markup:
    """Return the layers of each run; the paper's below. Table 1 of the paper."""
    rows = [_architecture(run) for run in runs]
    if _like_the_papers(runs):
        rows.append(
            [
                SANTARA,
                "-".join(map(str, SANTARA_LAYERS)),
                _shares(SANTARA_LAYERS),
                "rbm, sigmoid",
                _each(SANTARA_EPOCHS),
                _each(SANTARA_EXTRA),
            ]
        )
    return table(
        "Architecture of the encoder, whose mirror image decodes. Products: each "
        "layer's part of an epoch's multiplications, in %; with one worker a layer "
        "training cannot be faster than the largest part lets it.",
        ("", "units", "products, %", "layers", "epochs", "extra epochs"),
        rows,
        range(len(runs), len(rows)),
    )


def _architecture(run: Run) -> list[str]:
    config = run.section("pretrain")
    sizes = [run.section("data").get("n_visible"), *listing(config.get("layers"))]
    units = {key: str(config.get(key, "?")) for key in ("visible", "hidden", "code")}
    usual = max(units.values(), key=list(units.values()).count)
    others = [f"{key} {unit}" for key, unit in units.items() if unit != usual]
    return [
        run.name,
        widths(run),
        _shares(sizes),
        ", ".join([str(config.get("method", "?")), usual, *others]),
        _each(listing(config.get("epochs"))),
        _each(_extra_epochs(config)),
    ]


def _extra_epochs(config: Mapping[str, Any]) -> Sequence[int]:
    """Return the extra epochs of each layer, what the schedule usually has included."""
    keys = {"layers", "schedule", "extra_epochs"} & config.keys()
    values = {k: config[k] for k in keys}
    try:
        return from_values(PretrainConfig, values).extra
    except ConfigError:
        return ()


def _shares(sizes: Sequence[Any]) -> str:
    """Return each layer's part of the products of an epoch, in percent."""
    costs = [number(a) * number(b) for a, b in pairwise(sizes)]
    if not costs or len(costs) > _MOST_PARTS or not sum(costs) > 0:
        return NOTHING
    return " / ".join(f"{100 * cost / sum(costs):.2g}" for cost in costs)


def _each(values: Sequence[Any]) -> str:
    """Return one number for each layer, or the one that holds for all."""
    shown = [short(value) for value in values]
    if len(set(shown)) == 1 or len(shown) > _MOST_PARTS:
        shown = shown[:1] if len(set(shown)) == 1 else [shown[0], "…", shown[-1]]
    return " / ".join(shown) or NOTHING


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
    says = ""
    if _like_the_papers(runs):
        says = (
            " The paper's rows, in italics, are of the full MNIST with "
            "784-1000-500-250-30, after fine-tuning; its data and settings may differ "
            "from those of the runs."
        )
        for kind, (train, test) in SANTARA_ERRORS.items():
            rows.append([f"{SANTARA}: {kind}", digits(train), NOTHING, digits(test)])
    return table(
        f"Reconstruction error ({ERROR}).{says}",
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
    rows = [_pretraining(run, runs) for run in runs]
    base = SANTARA_SECONDS["greedy"]
    for kind, took in SANTARA_SECONDS.items() if _like_the_papers(runs) else ():
        cells = [kind, "4 threads", f"{took:,}", NOTHING, f"{base / took:.4g} ×"]
        rows.append([SANTARA, *cells])
    head = ("", "schedule", "ranks", "measured, s", *_PRETRAINING)
    # The last columns say nothing of most runs.
    filled = [
        name not in _PRETRAINING or any(cell != NOTHING for cell in column)
        for name, column in zip(head, zip(*rows, strict=True), strict=True)
    ]
    shown = list(compress(head, filled))
    says = "".join(_PRETRAINING.get(name, "") for name in shown)
    return table(
        f"Seconds of pre-training.{says}{_CROWDED * any(map(_is_crowded, runs))}",
        shown,
        [list(compress(row, filled)) for row in rows],
        range(len(runs), len(rows)),
    )


def _pretraining(run: Run, runs: Sequence[Run]) -> list[str]:
    took = number(run.summary.get("pretrain_seconds"))
    virtual = number(run.summary.get("simulated_seconds"))
    if _is_crowded(run):
        virtual = math.nan
    simulated = run.section("pretrain").get("schedule") == "simulate"
    compared, label = (virtual, "× (simulated)") if simulated else (took, "×")
    greedy = _greedy_seconds(run, runs)
    return [
        run.name,
        schedule(run),
        ranks(run.summary) or NOTHING,
        _seconds(took),
        _seconds(virtual) if simulated or virtual >= _LEAST_SIMULATED else NOTHING,
        f"{greedy / compared:.3g} {label}" if greedy > 0 < compared else NOTHING,
    ]


def _is_crowded(run: Run) -> bool:
    # Of a former version: not recorded.
    return bool(run.summary.get("crowded", number(run.summary.get("ranks")) > 1))


def _seconds(value: float) -> str:
    return digits(value, 3 if value < 1 else 1)


def _highlights(run: Run) -> Markup:
    summary = run.summary
    errors = {
        "finetune": {
            "reconstruction error, test": digits(summary.get("test_error")),
            "PCA's error, test": digits(at(summary, "pca", "test")),
        },
        "classify": {
            "wrong classes, test": percent(label_error(run, "classify", "test")),
        },
        "regress": {
            "root mean square error of labels, test": digits(
                label_error(run, "regress", "test")
            ),
        },
    }
    times = {
        "pre-training": seconds(summary.get("pretrain_seconds")),
        "fine-tuning": seconds(summary.get("finetune_seconds")),
        "ranks, pre-training": short(summary.get("ranks"), ".0f"),
    }
    # What was trained last comes first.
    last = next((step for step in reversed(run.complete) if step in errors), "")
    first = errors.pop(last, {})
    pairs = (pair for one in (first, *errors.values(), times) for pair in one.items())
    return facts((k, v) for k, v in pairs if v != NOTHING)


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
