"""Would more ranks help? What a run's own seconds tell of other numbers of them."""

from collections.abc import Iterator

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, from_values
from mpilayer.errors import MpilayerError
from mpilayer.plan.model import Outlook
from mpilayer.plan.seen import finetuning_seen, pretraining_seen, sparse_seen
from mpilayer.report import html
from mpilayer.report.run import Run, number
from mpilayer.report.words import short
from mpilayer.train.layer import layer_shapes

_WORTH = 1.1  # times as fast
_MOST_EPOCHS = 10_000


def would_more_ranks_help(run: Run) -> Iterator[html.Part]:
    """Yield a table for each training of a run that has gone far enough to tell."""
    for title, ranks, look in (
        ("pre-training", run.summary.get("ranks"), _pretraining),
        ("fine-tuning", run.summary.get("finetune_ranks"), _finetuning),
        ("training", run.summary.get("ranks"), _sparse),
    ):
        try:
            found = look(run)
        # Files of former versions, or that others have changed, may lack what is asked.
        except (MpilayerError, ArithmeticError, LookupError, TypeError, ValueError):
            continue
        if found is not None and any(f.ranks == ranks for f in found.forecasts):
            layout = str(run.section("pretrain").get("layout"))
            yield _table(title, int(number(ranks)), layout, found)


def _table(title: str, ranks: int, layout: str, found: Outlook) -> html.Markup:
    own = [f for f in found.forecasts if f.ranks == ranks]
    now = next((f for f in own if f.option.endswith(layout)), own[0])
    speeds = [now.cost.seconds / f.cost.seconds for f in found.forecasts]
    pairs = [*zip(speeds, found.forecasts, strict=True)]
    more = [(s, f) for s, f in pairs if f.ranks > ranks and s > _WORTH]
    answer = f"no: no more than {ranks} would be {_WORTH:g} times as fast"
    if more:
        speed, best = max(more, key=lambda pair: (round(pair[0], 1), -pair[1].ranks))
        told = f" with {best.option}" if best.option else ""
        answer = f"{best.ranks}{told} would be {speed:.1f} times as fast"
    rows = [
        [
            str(f.ranks),
            f.cost.layout,
            short(speed, ".2f"),
            short(f.efficiency, ".2f"),
            f.cost.bound,
        ]
        for speed, f in pairs
    ]
    return html.table(
        f"Would more ranks help {title}? {answer.capitalize()}. Simulated from the "
        f"run's own seconds on {ranks}, for a host with a core for each rank; "
        "'mpilayer plan' measures, and knows several hosts.",
        ("ranks", "who does what", "speed against now", "efficiency", "bound by"),
        rows,
    )


def _pretraining(run: Run) -> Outlook | None:
    values = run.section("pretrain")
    if run.kind != "deep" or not all(run.layers):
        return None
    config = from_values(PretrainConfig, values)
    if config.schedule.startswith("replay"):
        return None
    # Every epoch is an event; 10⁶ of them take minutes for each number of ranks.
    if sum(config.stipulated_epochs) > _MOST_EPOCHS:
        return None
    ranks = int(run.summary["ranks"])
    return pretraining_seen(config, run.n_visible, ranks, run.layers)


def _finetuning(run: Run) -> Outlook | None:
    lines = run.metrics["finetune"]
    if run.kind != "deep" or not lines or number(run.summary.get("finetune_hosts")) > 1:
        return None
    stack = from_values(PretrainConfig, run.section("pretrain"))
    config = from_values(FinetuneConfig, run.section("finetune"))
    shapes, ranks = layer_shapes(stack, run.n_visible), run.summary["finetune_ranks"]
    return finetuning_seen(config, shapes, int(ranks), lines)


def _sparse(run: Run) -> Outlook | None:
    lines, ranks = run.metrics["sparse"], run.summary.get("ranks")
    if run.kind != "sparse" or len(lines) < 2 or ranks is None:
        return None
    config = from_values(SparseConfig, run.section("sparse"))
    shape = int(run.summary["n_rows"]), run.n_visible
    return sparse_seen(config, shape, int(ranks), lines)
