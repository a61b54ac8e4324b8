"""What each layer of a run did over time, as in Figures 3, 4 of Santara et al. 2016."""

from collections.abc import Iterator

from mpilayer.report import spacetime
from mpilayer.report.html import Figure, Markup, Part, Picture, note, table
from mpilayer.report.run import Run, listing
from mpilayer.report.words import ERROR, NOTHING, digits
from mpilayer.train.record import KINDS

_ZOOMED_EPOCHS = 3


def space_time(run: Run, name: str) -> Iterator[Part]:
    """Yield the diagram of all layers, and some epochs of one."""
    lanes = _lanes(run)
    begun = [lane for lane in lanes if lane.epochs]
    if not begun:
        yield note("No layer has come to the end of an epoch: there is no diagram yet.")
        return
    alt = "Space-time diagram: for each layer what it did over the seconds of training"
    yield Figure(
        f"spacetime-{name}",
        "Space-time diagram",
        "What each layer did over the seconds of training, with numbers of "
        f"epochs; above each row the layer's own reconstruction error ({ERROR} of the "
        "monitored rows, at the end of each epoch; each layer has its own scale), and "
        "arrows from where an output left a layer to the epoch above that first used "
        "it.",
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
        "output each epoch used, and where its seconds went.",
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


def times_table(run: Run) -> Iterator[Markup]:
    """Yield where the time of each layer went."""
    times = [
        {kind: sum(e.seconds[kind] for e in epochs) for kind in KINDS}
        for epochs in run.layers
    ]
    # Seconds of short runs would all be 0.00.
    is_short = all(sum(sums.values()) < 1 for sums in times)
    unit, factor = ("Milliseconds", 1e3) if is_short else ("Seconds", 1)
    rows = []
    for index, (epochs, sums) in enumerate(zip(run.layers, times, strict=True)):
        held = ",".join(map(str, sorted({e.rank for e in epochs}))) or NOTHING
        total = sum(sums.values())
        share = f"{sums['waiting'] / total:.0%}" if total else NOTHING
        cells = [held, str(len(epochs)), *(digits(factor * sums[k]) for k in KINDS)]
        rows.append([f"layer {index + 1}", *cells, share])
    yield table(
        f"{unit} of each layer in pre-training, by kind.",
        ("", "rank", "epochs", *KINDS.values(), "share waited"),
        rows,
    )
