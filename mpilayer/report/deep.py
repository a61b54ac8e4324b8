"""What a report shows of deep runs: each by itself, and all together."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from mpilayer import papers
from mpilayer.config import PretrainConfig, from_values
from mpilayer.errors import ConfigError
from mpilayer.papers import SANTARA
from mpilayer.report import html, spacetime, words
from mpilayer.report.finetuning import finetuning_curves, predictions, stack_curves
from mpilayer.report.images import code_space, first_layer, reconstructions
from mpilayer.report.ranks import would_more_ranks_help
from mpilayer.report.run import PREDICTORS, Epoch, Run, listing, number
from mpilayer.train.record import KINDS, at_barriers, team_of
from mpilayer.words import spans

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
_ZOOMED_EPOCHS = 3


def together(runs: Sequence[Run]) -> Iterator[html.Part]:
    """Yield what sets all deep runs beside one another."""
    yield html.paragraph(
        "Layers are trained one by one or all at once, the stack is unrolled, then "
        f"fine-tuned as a whole. The schedule async is the method of {SANTARA}, "
        "simulate says what it would do on other machines; lockstep is mpilayer's own "
        "variant."
    )
    yield architecture_table(runs)
    yield errors_table(runs)
    yield pretraining_table(runs)
    yield from stack_curves(runs)
    yield from finetuning_curves(runs)
    yield from predictions(runs)
    yield from reconstructions(runs, "reconstructions")


def alone(run: Run) -> Iterator[html.Part]:
    """Yield what is to be said of one run; first what a reader must know first."""
    yield _highlights(run)
    yield from map(html.note, run.remarks)
    warnings = ("short_of_epochs", "worse_than_pca", "mostly_at_barriers")
    for key in (*warnings, "classify_no_better", "regress_no_better"):
        if told := run.summary.get(key):
            yield html.note(f"Warning: {told}")
    yield from _space_time(run)
    yield times_table(run)
    yield from would_more_ranks_help(run)
    yield from first_layer(run)
    yield from code_space(run)


def _highlights(run: Run) -> html.Markup:
    summary = run.summary
    classes, labels = (words.label_error(run, task, "test") for task in PREDICTORS)
    errors = {
        "finetune": {
            "reconstruction error, test": words.digits(summary.get("test_error")),
            "PCA's error, test": words.digits(words.at(summary, "pca", "test")),
        },
        "classify": {"wrong classes, test": words.percent(classes)},
        "regress": {"root mean square error of labels, test": words.digits(labels)},
    }
    # What was trained last comes first.
    last = next((step for step in reversed(run.complete) if step in errors), "")
    shown = errors.pop(last, {})
    for others in errors.values():
        shown |= others
    shown["pre-training"] = words.seconds(summary.get("pretrain_seconds"))
    shown["fine-tuning"] = words.seconds(summary.get("finetune_seconds"))
    shown["ranks, pre-training"] = words.short(summary.get("ranks"), ".0f")
    return html.facts(shown)


def _like_the_papers(runs: Sequence[Run]) -> bool:
    """Tell whether there are runs on images of MNIST's size: others have no equal."""
    return any(run.n_visible == papers.SANTARA_LAYERS[0] for run in runs)


def architecture_table(runs: Sequence[Run]) -> html.Markup:
    """Return the layers of each run; the paper's below. Table 1 of the paper."""
    layers = papers.SANTARA_LAYERS
    units, shares = "-".join(map(str, layers)), _shares(layers)
    epochs = _each(papers.SANTARA_EPOCHS), _each(papers.SANTARA_EXTRA)
    theirs = [SANTARA, units, shares, "rbm, sigmoid", *epochs]
    return html.table(
        "Architecture of the encoder, whose mirror image decodes. Products: each "
        "layer's part of an epoch's multiplications, in %; with one worker a layer "
        "training cannot be faster than the largest part lets it.",
        ("", "units", "products, %", "layers", "epochs", "extra epochs"),
        map(_architecture, runs),
        [theirs] if _like_the_papers(runs) else (),
    )


def _architecture(run: Run) -> list[str]:
    config = run.section("pretrain")
    sizes = [run.section("data").get("n_visible"), *listing(config.get("layers"))]
    units = {key: str(config.get(key, "?")) for key in ("visible", "hidden", "code")}
    usual = max(units.values(), key=list(units.values()).count)
    others = [f"{key} {unit}" for key, unit in units.items() if unit != usual]
    # Of each layer, what the schedule usually has included.
    keys = ("layers", "schedule", "extra_epochs")
    values = {key: config[key] for key in keys if key in config}
    extra: Sequence[int] = ()
    with suppress(ConfigError):  # of another version
        extra = from_values(PretrainConfig, values).extra
    return [
        run.name,
        words.widths(run),
        _shares(sizes),
        ", ".join([str(config.get("method", "?")), usual, *others]),
        _each(listing(config.get("epochs"))),
        _each(extra),
    ]


def _shares(sizes: Sequence[Any]) -> str:
    """Return each layer's part of the products of an epoch, in percent."""
    costs = [number(a) * number(b) for a, b in pairwise(sizes)]
    if not costs or len(costs) > _MOST_PARTS or not sum(costs) > 0:
        return html.NOTHING
    return " / ".join(f"{100 * cost / sum(costs):.2g}" for cost in costs)


def _each(values: Sequence[Any]) -> str:
    """Return one number for each layer, or the one that holds for all."""
    shown = [words.short(value) for value in values]
    if len(set(shown)) == 1:
        shown = shown[:1]
    elif len(shown) > _MOST_PARTS:
        shown = [shown[0], "…", shown[-1]]
    return " / ".join(shown) or html.NOTHING


def errors_table(runs: Sequence[Run]) -> html.Markup:
    """Return the errors of PCA and stacks beside Table 2 of Santara et al. 2016."""
    kinds = {"pretrained": "pre-trained", "finetuned": "fine-tuned"}
    kinds = {"pca": "PCA, as many components", **kinds}
    found = [{key: _on_splits(run.summary.get(key)) for key in kinds} for run in runs]
    rows, pca = [], found[0]["pca"]
    is_known, equal = {*pca} != {html.NOTHING}, all(f["pca"] == pca for f in found)
    if len(runs) > 1 and is_known and equal:
        # The same data and as many code units: once is enough.
        rows.append([f"all runs: {kinds.pop('pca')}", *pca])
    for run, errors in zip(runs, found, strict=True):
        for key, kind in kinds.items():
            if run.summary.get(key) or key == "pretrained":
                rows.append([f"{run.name}: {kind}", *errors[key]])
    says, theirs = "", []
    if _like_the_papers(runs):
        says = (
            " The paper's rows, in italics, are of the full MNIST with "
            "784-1000-500-250-30, after fine-tuning; its data and settings may differ "
            "from those of the runs."
        )
        for kind, (train, test) in papers.SANTARA_ERRORS.items():
            told = _on_splits({"train": train, "test": test})
            theirs.append([f"{SANTARA}: {kind}", *told])
    title = f"Reconstruction error ({words.ERROR}).{says}"
    return html.table(title, ("", *words.SPLITS), rows, theirs)


def _on_splits(errors: Any) -> list[str]:
    return [words.digits(words.at(errors, split)) for split in words.SPLITS]


def pretraining_table(runs: Sequence[Run]) -> html.Markup:
    """Return how long pre-training took, beside Table 3 of Santara et al. 2016."""
    greedy = {
        _comparable(run): number(run.summary.get("pretrain_seconds"))
        for run in reversed(runs)
        if run.section("pretrain").get("schedule") == "greedy"
    }
    rows = [_pretraining(run, greedy.get(_comparable(run), math.nan)) for run in runs]
    base = papers.SANTARA_SECONDS["greedy"]
    theirs = [
        [SANTARA, kind, "4 threads", f"{took:,}", html.NOTHING, f"{base / took:.4g} ×"]
        for kind, took in papers.SANTARA_SECONDS.items()
        if _like_the_papers(runs)
    ]
    head = ("", "schedule", "ranks", "measured, s", *_PRETRAINING)
    # The last columns say nothing of most runs.
    columns = zip(head, *rows, *theirs, strict=True)
    shown = [c for c in columns if c[0] in head[:4] or {*c[1:]} != {html.NOTHING}]
    names, *cells = zip(*shown, strict=True)
    says = "".join(_PRETRAINING.get(name, "") for name in names)
    crowded = _CROWDED if any(map(_is_crowded, runs)) else ""
    title = f"Seconds of pre-training.{says}{crowded}"
    return html.table(title, names, cells[: len(rows)], cells[len(rows) :])


def _pretraining(run: Run, greedy: float) -> list[str]:
    """Return a row; ``greedy`` are the seconds that its speed is against."""
    took = number(run.summary.get("pretrain_seconds"))
    virtual = number(run.summary.get("simulated_seconds"))
    virtual = math.nan if _is_crowded(run) else virtual
    simulated = run.section("pretrain").get("schedule") == "simulate"
    compared, label = (virtual, "× (simulated)") if simulated else (took, "×")
    return [
        run.name,
        words.schedule(run),
        words.ranks(run.summary) or html.NOTHING,
        _seconds(took),
        _seconds(virtual) if simulated or virtual >= _LEAST_SIMULATED else html.NOTHING,
        f"{greedy / compared:.3g} {label}" if greedy > 0 < compared else html.NOTHING,
    ]


def _is_crowded(run: Run) -> bool:
    # Of a former version: not recorded.
    return bool(run.summary.get("crowded", number(run.summary.get("ranks")) > 1))


def _seconds(value: float) -> str:
    return words.digits(value, 3 if value < 1 else 1)


def _comparable(run: Run) -> str:
    """Return all that must be equal for seconds to be comparable."""
    config = run.section("pretrain")
    keys = ("layers", "epochs", "minibatch", "method")
    return repr((run.section("data").get("digest"), [config.get(k) for k in keys]))


def _space_time(run: Run) -> Iterator[html.Part]:
    """Yield Figures 3 and 4 of Santara et al. 2016: all layers, some epochs of one."""
    n_visible = run.section("data").get("n_visible", "?")
    sizes = [n_visible, *listing(run.section("pretrain").get("layers"))]
    lanes = []
    for index, epochs in enumerate(run.layers):
        held = _ranks(epochs)
        word = "ranks" if any(epoch.team for epoch in epochs) else "rank"
        rank = f", {word} {held}" if held else ""
        pair = f"{sizes[index]}-{sizes[index + 1]}"
        lanes.append(spacetime.Lane(f"layer {index + 1}", f"{pair}{rank}", epochs))
    begun = [lane for lane in lanes if lane.epochs]
    if not begun:
        yield html.note(
            "No layer has come to the end of an epoch: there is no diagram yet."
        )
        return
    title, name = "Space-time diagram", f"spacetime-{run.place}"
    alt = f"{title}: for each layer what it did over the seconds of training"
    says = (
        "What each layer did over the seconds of training, with numbers of epochs; "
        f"above each row the layer's own reconstruction error ({words.ERROR} of the "
        "monitored rows, at the end of each epoch; each layer has its own scale), and "
        "arrows from where an output left a layer to the epoch above that first used "
        "it."
    )
    if any(lane.n_others for lane in lanes):
        says += (
            " Of a team the bar is its head's, and the others have lanes below, grey "
            "where they wait; the barriers of all minibatches are drawn after the work "
            "of the epoch."
        )
    picture = html.Picture(spacetime.diagram(lanes, alt=f"{alt} of {run.name}"), alt)
    yield html.Figure(name, title, says, [picture], "wide")
    zoomed = begun[:2][-1]
    window = spacetime.window_of(zoomed, _ZOOMED_EPOCHS)
    shown = [
        lane
        for lane in begun[:2]
        if any(e.ended > window[0] and e.started < window[1] for e in lane.epochs)
    ]
    title, name = f"Some epochs of {zoomed.title}", f"zoom-{run.place}"
    alt = f"The same, for some epochs of {zoomed.title}"
    says = (
        f"The same between {window[0]:.3g} and {window[1]:.3g} seconds, for "
        f"{zoomed.title}{' and the one below it' if len(shown) > 1 else ''}: which "
        "output each epoch used, and where its seconds went."
    )
    drawn = spacetime.diagram(shown, window, f"{alt} of {run.name}")
    yield html.Figure(name, title, says, [html.Picture(drawn, alt)], "wide")


def times_table(run: Run) -> html.Markup:
    """Return where the time of each layer went."""
    times = [
        {kind: sum(e.seconds[kind] for e in own) for kind in KINDS}
        for own in run.layers
    ]
    # Seconds of short runs would all be 0.00.
    is_short = all(sum(sums.values()) < 1 for sums in times)
    unit, factor = ("Milliseconds", 1e3) if is_short else ("Seconds", 1)
    rows = []
    for index, (epochs, sums) in enumerate(zip(run.layers, times, strict=True)):
        held, team = _ranks(epochs) or html.NOTHING, team_of(epochs)
        total = sum(sums.values())
        share = f"{sums['waiting'] / total:.0%}" if total else html.NOTHING
        barriers = f"{at_barriers(team):.0%}" if team else html.NOTHING
        cells = (words.digits(factor * sums[kind]) for kind in KINDS)
        row = [f"layer {index + 1}", held, str(len(epochs)), *cells, share, barriers]
        rows.append(row)
    head = ("", "rank", "epochs", *KINDS.values(), "share waited", "at barriers")
    says, n_columns = "; of a team its head's", len(head)
    if all(row[-1] == html.NOTHING for row in rows):
        says, n_columns = "", n_columns - 1
    return html.table(
        f"{unit} of each layer in pre-training, by kind{says}.",
        head[:n_columns],
        [row[:n_columns] for row in rows],
    )


def _ranks(epochs: Sequence[Epoch]) -> str:
    """Return the ranks that held a layer, or its teams; nothing if nobody knows."""
    held = {e.rank for e in epochs if e.rank >= 0}
    if team := team_of(epochs):
        return spans(held.union(rank for rank, *_ in team))
    return ",".join(map(str, sorted(held)))
