"""What a report shows of deep runs: each by itself, and all together."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mpilayer.report import figures, spacetime
from mpilayer.report.collect import Run, Sample, as_images, listing, mapping, number
from mpilayer.report.figures import Chart, Line
from mpilayer.report.html import (
    Figure,
    Markup,
    Picture,
    Section,
    captioned,
    element,
    facts,
    note,
    paragraph,
    table,
)
from mpilayer.report.words import (
    ERROR,
    NOTHING,
    at,
    digits,
    each,
    ranks,
    schedule,
    seconds,
    settings,
    short,
    state,
)

PAPER = "Santara et al. 2016"
"""Full MNIST, 784-1000-500-250-30, on 4 threads: Tables 2 and 3."""

_PAPER_ERRORS = {"greedy": (8.00, 8.19), "synchronized": (8.39, 8.57)}
_PAPER_SECONDS = {"greedy": 11_683, "synchronized": 6_551}
_SPLITS = ("train", "validation", "test")
_KINDS = ("training", "transform", "monitor", "sending", "waiting")
_ZOOMED_EPOCHS = 3
_MOST_FILTERS = 100
_LOG_FROM = 6.0

Part = Markup | Figure


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
            "fine-tuned as a whole."
        ),
        errors_table(runs),
        pretraining_table(runs),
        *_curves(runs),
        *reconstructions(runs, "reconstructions"),
    ]
    return Section("deep", "Deep autoencoders", tuple(parts))


def alone(run: Run) -> Section:
    """Return the section on one run."""
    name = run.place
    parts: list[Part] = [
        paragraph(element("b", settings(run)), f". State: {state(run)}."),
        _highlights(run),
        *(note(remark) for remark in run.remarks),
        *_space_time(run, name),
        *_times_table(run),
        *first_layer(run, name),
        *_codes(run, name),
        *confusion(run),
    ]
    return Section(f"run-{name}", f"Run {run.name}", tuple(parts), within=True)


def errors_table(runs: Sequence[Run]) -> Markup:
    """Return the errors of PCA, pre-trained and fine-tuned stacks; the paper's beside.

    Table 2 of the paper.
    """
    rows = []
    for run in runs:
        kinds = {
            "PCA, as many components": run.summary.get("pca"),
            "pre-trained": run.summary.get("pretrained"),
            "fine-tuned": run.summary.get("finetuned"),
        }
        for kind, errors in kinds.items():
            if errors or kind == "pre-trained":
                cells = [digits(mapping(errors).get(split)) for split in _SPLITS]
                rows.append([f"{run.name}: {kind}", *cells])
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


def pretraining_table(runs: Sequence[Run]) -> Markup:
    """Return how long pre-training took; the paper's beside. Table 3 of the paper."""
    rows = []
    for run in runs:
        took = number(run.summary.get("pretrain_seconds"))
        greedy = _greedy_seconds(run, runs)
        rows.append(
            [
                run.name,
                schedule(run),
                ranks(run.summary) or NOTHING,
                digits(took, 1),
                digits(run.summary.get("simulated_seconds"), 1),
                f"{greedy / took:.2f} ×" if greedy > 0 < took else NOTHING,
            ]
        )
    n_ours = len(rows)
    base = _PAPER_SECONDS["greedy"]
    for kind, took in _PAPER_SECONDS.items():
        cells = [kind, "4 threads", f"{took:,}", NOTHING, f"{base / took:.3f} ×"]
        rows.append([PAPER, *cells])
    return table(
        "Pre-training in seconds. Simulated: what the same table of epochs would take "
        "with a core for each layer. The last column compares with a greedy run of the "
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


def reconstructions(runs: Sequence[Run], name: str) -> Iterator[Part]:
    """Yield originals beside what the runs make of them, a figure a data set.

    Figure 5 of the paper. The name is that of the figures.
    """
    known = [(run, run.sample) for run in runs if run.sample is not None]
    digests = dict.fromkeys(sample.digest for _, sample in known)
    for place, digest in enumerate(digests, start=1):
        some = [(run, sample) for run, sample in known if sample.digest == digest]
        drawn = _compared(some, f"{name}-{place}")
        if drawn is not None:
            yield drawn


def first_layer(run: Run, name: str) -> Iterator[Figure]:
    """Yield the weights of the first layer's units as images, if rows are square."""
    if run.weights is None:
        return
    images = as_images(run.weights.T)
    if images is None:
        return
    some = images[:_MOST_FILTERS]
    columns = math.ceil(math.sqrt(len(some)))
    of = "first " if len(some) < len(images) else ""
    yield Figure(
        f"filters-{name}",
        "First-layer filters",
        f"Weights from the {images.shape[1]} × {images.shape[2]} inputs to each of the "
        f"{of}{len(some)} of {len(images)} hidden units; grey is 0, each tile has its "
        f"own scale ({settings(run)}).",
        (
            Picture(
                figures.tiles(some, columns, signed=True),
                f"Weights of {len(some)} hidden units of {run.name}, as grey images",
            ),
        ),
    )


def confusion(run: Run) -> Iterator[Markup]:
    """Yield a classifier's confusion matrix, if the run has one."""
    matrix = [
        [number(value) for value in listing(row)]
        for row in listing(run.summary.get("confusion"))
    ]
    n = len(matrix)
    if not n or any(len(row) != n for row in matrix):
        return
    counts = np.nan_to_num(np.array(matrix))
    total, most = counts.sum() or 1.0, counts.max() or 1.0
    classes = listing(run.summary.get("classes"))
    names = list(map(str, classes if len(classes) == n else range(n)))
    head = [element("th", name, scope="col") for name in ("true class", *names)]
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(_cell(value, most, i == j) for j, value in enumerate(matrix[i])),
        )
        for i, name in enumerate(names)
    ]
    title = (
        "Confusion matrix: rows of each true class by the class they were taken for "
        f"(columns); {1 - counts.trace() / total:.2%} of {total:,.0f} are wrong. Right "
        "answers are framed."
    )
    top = element("thead", element("tr", *head))
    inner = element("table", top, element("tbody", *body), aria_label=title)
    yield captioned(title, inner, "confusion")


def _cell(value: float, most: float, right: bool) -> Markup:
    share = round(100 * (value / most) ** 0.5) // 2 if math.isfinite(value) else 0
    shade = f"background:color-mix(in srgb,var(--c0) {share}%,transparent)"
    return element(
        "td", short(value, ",.0f"), style=shade, class_="right" if right else ""
    )


def _highlights(run: Run) -> Markup:
    summary = run.summary
    pairs = {
        "test error": digits(summary.get("test_error")),
        "PCA error, test": digits(at(summary, "pca", "test")),
        "pre-training": seconds(summary.get("pretrain_seconds")),
        "fine-tuning": seconds(summary.get("finetune_seconds")),
        "ranks, pre-training": short(summary.get("ranks"), ".0f"),
        "class error, test": _percent(at(summary, "classify_error", "test")),
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


def _curves(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield the error of the unrolled stack over time. Figure 6 of the paper."""
    lines, levels, drawn_runs = [], [], []
    for place, run in enumerate(runs):
        points = list(_stack_points(run))
        if points:
            drawn_runs.append(run)
            x, y = zip(*points, strict=True)
            lines.append(Line(run.name, x, y, place))
            if math.isfinite(pca := number(at(run.summary, "pca", "validation"))):
                levels.append((f"PCA, {run.name}", pca))
    if not lines:
        return
    levels = list({round(v, 6): (label, v) for label, v in levels}.values())[:2]
    what = "pre-training" if any(run.stack for run in runs) else "fine-tuning"
    then = (
        ", then fine-tuning" if any(run.finetune and run.stack for run in runs) else ""
    )
    values = [value for line in lines for value in line.y if value > 0]
    drawn = Chart(
        tuple(lines),
        "seconds of training",
        "error on validation rows",
        f"Error of the unrolled stack over seconds, for {_names(runs)}",
        y_log=bool(values) and max(values) > _LOG_FROM * min(values),
        levels=tuple(levels),
    )
    yield Figure(
        "stack-error",
        "Error of the unrolled stack",
        f"Reconstruction error of validation rows ({ERROR}) over the seconds of "
        f"{what}{then}; {each(drawn_runs)}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )
    epochs = [
        Line(run.name, *_finetune_epochs(run), place)
        for place, run in enumerate(runs)
        if run.finetune
    ]
    if not epochs:
        return
    drawn = Chart(
        tuple(epochs),
        "epochs of fine-tuning",
        "error on validation rows",
        f"Validation error over the epochs of fine-tuning, for {_names(runs)}",
        whole=True,
    )
    yield Figure(
        "finetuning",
        "Fine-tuning",
        f"Reconstruction error of validation rows ({ERROR}) after each epoch of "
        "fine-tuning; at 0 the pre-trained stack; "
        f"{_finetunings(runs)}.",
        (Picture(figures.chart(drawn), drawn.alt),),
    )


def _stack_points(run: Run) -> Iterator[tuple[float, float]]:
    """Yield seconds and error of the stack, in pre-training and then fine-tuning."""
    for line in run.stack:
        yield number(line.get("seconds")), number(line.get("validation_error"))
    now = number(run.summary.get("pretrain_seconds"))
    if not run.finetune or not math.isfinite(now):
        return
    yield now, number(at(run.summary, "pretrained", "validation"))
    for line in run.finetune:
        parts = (number(line.get(k)) for k in ("training", "allreduce", "evaluating"))
        now += sum(parts)
        yield now, number(line.get("validation_error"))


def _finetune_epochs(run: Run) -> tuple[list[float], list[float]]:
    x = [0.0, *(number(line.get("epoch")) for line in run.finetune)]
    y = [
        number(at(run.summary, "pretrained", "validation")),
        *(number(line.get("validation_error")) for line in run.finetune),
    ]
    return x, y


def _finetunings(runs: Sequence[Run]) -> str:
    return "; ".join(
        f"{run.name}: {run.section('finetune').get('optimizer', '?')}, rate "
        f"{short(run.section('finetune').get('learning_rate'))}, minibatch "
        f"{run.section('finetune').get('minibatch', '?')}, "
        f"{ranks(run.summary, 'finetune_') or 'ranks unknown'}"
        for run in runs
        if run.finetune
    )


def _compared(some: Sequence[tuple[Run, Sample]], name: str) -> Figure | None:
    first = some[0][1]
    pictures = []
    for label, rows in _panels(some):
        images = as_images(_greys(rows, first.originals))
        if images is None:
            return None
        columns = math.ceil(math.sqrt(len(images)))
        error = np.square(rows - first.originals, dtype=np.float64).sum(axis=1).mean()
        of = f", error {error:.2f}" if rows is not first.originals else ""
        pictures.append(
            Picture(
                figures.tiles(images, columns),
                f"{label}: {len(images)} images in rows of {columns}",
                f"{label}{of}",
            )
        )
    return Figure(
        name,
        "Originals beside their reconstructions",
        f"{len(first.originals)} {first.split} rows from all over {first.data!r}, in "
        f"the same places in every panel, with the error on these rows ({ERROR}); "
        f"{each([run for run, _ in some])}.",
        tuple(pictures),
        "tiles",
    )


def _greys(rows: Any, originals: Any) -> Any:
    """Return rows from 0 to 1: as they are, or about grey on the originals' scale."""
    if originals.min() >= 0 and originals.max() <= 1:
        return rows
    return 0.5 + rows / (2 * (np.quantile(np.abs(originals), 0.99) or 1.0))


def _panels(some: Sequence[tuple[Run, Sample]]) -> Iterator[tuple[str, Any]]:
    yield "originals", some[0][1].originals
    for run, sample in some:
        for model, rows in sample.reconstructions.items():
            yield f"{run.name}, {model}", rows


def _space_time(run: Run, name: str) -> Iterator[Part]:
    """Yield the diagram of all layers, and some epochs of one. Figures 3 and 4."""
    lanes = _lanes(run)
    begun = [lane for lane in lanes if lane.epochs]
    if not begun:
        yield note("No layer has come to the end of an epoch: there is no diagram yet.")
        return
    alt = "Space-time diagram: for each layer what it did over the seconds of training"
    yield Figure(
        f"spacetime-{name}",
        "Space-time diagram",
        "What each layer did over the seconds of training, with the number of each "
        f"epoch; above each row the layer's own reconstruction error ({ERROR} of the "
        "monitored rows, at the end of each epoch; each layer has its own scale), and "
        "arrows from where an output left a layer to the epoch above that first used "
        f"it ({settings(run)}).",
        (Picture(spacetime.diagram(lanes, alt=f"{alt} of {run.name}"), alt),),
        "wide",
    )
    zoomed = begun[:2][-1]
    window = spacetime.window_of(zoomed, _ZOOMED_EPOCHS)
    shown = [
        lane
        for lane in begun[:2]
        if any(e.ended > window[0] and e.started < window[1] for e in lane.epochs)
    ]
    alt = f"The same, for some epochs of {zoomed.title}"
    yield Figure(
        f"zoom-{name}",
        f"Some epochs of {zoomed.title}",
        f"The same between {window[0]:.3g} and {window[1]:.3g} seconds, for "
        f"{zoomed.title}{' and the one below it' if len(shown) > 1 else ''}: which "
        "output "
        f"each epoch used, and where its seconds went ({settings(run)}).",
        (Picture(spacetime.diagram(shown, window, f"{alt} of {run.name}"), alt),),
        "wide",
    )


def _lanes(run: Run) -> list[spacetime.Lane]:
    visible = run.section("data").get("n_visible", "?")
    sizes = [visible, *listing(run.section("pretrain").get("layers"))]
    lanes = []
    for index, epochs in enumerate(run.layers):
        held = sorted({epoch.rank for epoch in epochs if epoch.rank >= 0})
        rank = f", rank {','.join(map(str, held))}" if held else ""
        pair = f"{sizes[index]}-{sizes[index + 1]}"
        lanes.append(spacetime.Lane(f"layer {index + 1}", f"{pair}{rank}", epochs))
    return lanes


def _times_table(run: Run) -> Iterator[Markup]:
    """Yield where the time of each layer went."""
    rows = []
    for index, epochs in enumerate(run.layers):
        sums = {kind: sum(e.seconds[kind] for e in epochs) for kind in _KINDS}
        held = ",".join(map(str, sorted({e.rank for e in epochs}))) or NOTHING
        total = sum(sums.values())
        share = f"{sums['waiting'] / total:.0%}" if total else NOTHING
        cells = [held, str(len(epochs)), *(digits(sums[kind]) for kind in _KINDS)]
        rows.append([f"layer {index + 1}", *cells, share])
    yield table(
        f"Seconds of each layer in pre-training, by kind ({settings(run)}).",
        ("", "rank", "epochs", *map(_word, _KINDS), "share waited"),
        rows,
    )


def _word(kind: str) -> str:
    return spacetime.KINDS[kind]


def _codes(run: Run, name: str) -> Iterator[Figure]:
    """Yield where the rows lie in the space of codes."""
    if run.sample is None or run.sample.codes.shape[1] < 2:
        return
    codes = run.sample.codes.astype(np.float64)
    how, axes = "", ("first code unit", "second code unit")
    if codes.shape[1] > 2:
        how = f" on the first two principal components of {codes.shape[1]} code units"
        codes, shares = _principal(codes)
        axes = (
            f"first component ({shares[0]:.0%} of the variance)",
            f"second component ({shares[1]:.0%})",
        )
    labels = run.sample.labels
    shown = "each drawn as its label" if labels is not None else "without labels"
    models = list(run.sample.reconstructions)
    alt = f"Codes of {len(codes)} rows of {run.name}, {shown}"
    drawn = figures.scatter(codes[:, 0], codes[:, 1], labels, Chart((), *axes, alt))
    yield Figure(
        f"codes-{name}",
        "Code space",
        f"Codes of {len(codes)} {run.sample.split} rows{how}, {shown}, by "
        f"the {models[-1]} stack, in the units of the code ({settings(run)}).",
        (Picture(drawn, alt),),
    )


def _principal(codes: Any) -> tuple[Any, list[float]]:
    """Return codes on their two first principal components, and their shares."""
    centred = codes - codes.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((sizes**2).sum()) or 1.0
    return left[:, :2] * sizes[:2], [float(s) ** 2 / total for s in sizes[:2]]


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)
