"""How a report writes numbers, settings and states of runs; pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mpilayer.report.html import NOTHING
from mpilayer.report.run import PREDICTORS, Run, listing, mapping, number
from mpilayer.words import plural

SPLITS = ("train", "validation", "test")

ERROR = "Σ over columns of (x − x̂)², mean over rows"
"""The unit of all reconstruction errors."""

_MOST_LAYERS = 12


def short(value: Any, form: str = ".3g") -> str:
    """Return a number in a form, a dash for none."""
    found = number(value)
    return format(found, form) if math.isfinite(found) else NOTHING


def digits(value: Any, places: int = 2) -> str:
    """Return a number with so many decimals, a dash for none."""
    return short(value, f",.{places}f")


def percent(value: Any) -> str:
    """Return a part of a hundred, a dash for none."""
    shown = short(value)
    return shown if shown == NOTHING else f"{shown}\N{NO-BREAK SPACE}%"


def count(value: Any, what: str) -> str:
    """Return a number of things."""
    found = number(value)
    if not math.isfinite(found):
        return f"? {what}s"
    return f"{found:,.0f} {plural(what, found)}"


def seconds(value: Any) -> str:
    """Return seconds, in minutes or hours where there are many."""
    found = number(value)
    if not math.isfinite(found):
        return NOTHING
    if found < 120:
        return f"{found:.3g} s"
    return f"{found / 60:.1f} min" if found < 7200 else f"{found / 3600:.1f} h"


def at(values: Any, *keys: str) -> Any:
    """Return what objects within objects hold, None where one is missing."""
    for key in keys:
        values = mapping(values).get(key)
    return values


def names(runs: Sequence[Run]) -> str:
    """Return the names of runs."""
    return ", ".join(run.name for run in runs)


def label_error(run: Run, task: str, split: str) -> float:
    """Return what a predictor's error is, in the unit of ``evaluate``."""
    return in_units(task, at(run.summary, f"{task}_error", split))


def in_units(task: str, error: Any) -> float:
    """Return percent of classes, and the root of squared deviations."""
    found = number(error)
    if task != "regress":
        return found
    return math.sqrt(found) if found >= 0 else math.nan


def widths(run: Run) -> str:
    """Return the sizes of a run's layers, such as 784-1000-30."""
    visible = run.section("data").get("n_visible", "?")
    if run.kind == "deep":
        sizes = [visible, *listing(run.section("pretrain").get("layers"))]
        shown = list(map(str, sizes))
        if len(shown) > _MOST_LAYERS:
            shown[4:-2] = ["…"]
            shown[-1] += f" ({len(sizes) - 1} layers)"
        return "-".join(shown)
    hidden = run.section("sparse").get("hidden", "?")
    is_known = "n_visible" in run.section("data")
    return f"{visible}-{hidden}-{visible}" if is_known else f"{hidden} hidden units"


def schedule(run: Run) -> str:
    """Return the schedule of a run, with its lag."""
    config = run.section("pretrain")
    name = str(config.get("schedule", "?"))
    return f"{name}, lag {_list(config.get('lag'))}" if name == "lockstep" else name


def ranks(summary: Mapping[str, Any], prefix: str = "") -> str:
    """Return the ranks and threads of a summary, nothing before there are any."""
    found = number(summary.get(f"{prefix}ranks"))
    if not math.isfinite(found):
        return ""
    threads = number(summary.get(f"{prefix}threads_per_rank"))
    each = f" × {count(threads, 'thread')}" if math.isfinite(threads) else ""
    return f"{count(found, 'rank')}{each}"


def settings(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """Return the main settings that all runs share, and the others of each."""
    common, own = _shared([_deep(r) if r.kind == "deep" else _sparse(r) for r in runs])
    return common, [one or NOTHING for one in own]


def finetunings(runs: Sequence[Run], step: str = "finetune") -> str:
    """Return the settings of fine-tuning for a task, as the section of that name."""
    common, own = _shared([_finetuning(run, step) for run in runs])
    told = [f"{run.name}: {one}" for run, one in zip(runs, own, strict=True) if one]
    return "; ".join([f"All: {common}", *told] if common else told)


def _shared(parts: Sequence[Sequence[str]]) -> tuple[str, list[str]]:
    """Return what several lists have in common, and the rest of each."""
    first = parts[0] if len(parts) > 1 else ()
    common = [part for part in first if part and all(part in one for one in parts)]
    rest = [[part for part in one if part and part not in common] for one in parts]
    return ", ".join(common), list(map(", ".join, rest))


def _finetuning(run: Run, step: str) -> list[str]:
    config = run.section(step)
    more = ("warm_up", "input_dropout", "dropout", "weight_decay")
    schedule = config.get("learning_rate_schedule", "constant")
    augment = config.get("augment", "none")
    return [
        "from scratch" if config.get("from_scratch") else "",
        str(config.get("optimizer", "?")),
        f"rate {short(config.get('learning_rate'))}",
        "" if schedule == "constant" else f"{schedule} rate",
        f"minibatch {config.get('minibatch', '?')}",
        "" if augment == "none" else str(augment),
        *_named(config, [key for key in more if number(config.get(key)) > 0]),
        ranks(run.summary, f"{step}_") or "ranks unknown",
    ]


def _deep(run: Run) -> list[str]:
    config = run.section("pretrain")
    return [
        widths(run),
        schedule(run),
        str(config.get("method", "")),
        f"{_list(config.get('epochs'))} epochs a layer",
        f"minibatch {config.get('minibatch', '?')}",
        f"seed {config.get('seed', '?')}",
        ranks(run.summary),
    ]


def _sparse(run: Run) -> list[str]:
    config = run.section("sparse")
    return [
        widths(run),
        str(config.get("optimizer", "")),
        "" if run.kind == "comparison" else f"sparsity term {config.get('kl', '?')}",
        *_named(config, ("sparsity_weight", "sparsity_target", "weight_decay")),
        count(run.summary["n_rows"], "row") if "n_rows" in run.summary else "",
        ranks(run.summary),
    ]


def _named(config: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"{key.replace('_', ' ')} {short(config.get(key))}" for key in keys]


def state(run: Run) -> str:
    """Return how far a run has come."""
    if run.kind == "comparison":
        is_complete = "compare" in run.complete
        return "compared" if is_complete else _going("not compared yet", run)
    if run.kind == "sparse":
        done = f"{len(run.metrics['sparse'])} evaluations"
        return "trained" if "sparse" in run.complete else _going(done, run)
    if "pretrain" not in run.complete:
        epochs = ", ".join(str(len(layer)) for layer in run.layers) or "none"
        return _going(f"epochs {epochs} of layers 1 to {len(run.layers)}", run)
    has = ["fine-tuned"] if "finetune" in run.complete else []
    under_way = []
    for step, made in {"finetune": "fine-tuned", **PREDICTORS}.items():
        article = "a " if step in PREDICTORS else ""
        if run.metrics[step] and step not in run.complete:
            epochs = count(len(run.metrics[step]), "epoch")
            under_way.append(f"{article}{made} for {epochs}")
        elif run.metrics[step] and article:
            has.append(f"with {article}{made}")
    done = " and ".join(["pre-trained", ", ".join(has)] if has else ["pre-trained"])
    return _going(", ".join([done, *under_way]), run) if under_way else done


def _going(done: str, run: Run) -> str:
    if run.at_work is False:
        return f"interrupted: {done}; go on with 'mpilayer resume {run.path}'"
    last = ""
    if math.isfinite(run.silent):
        last = f"; the last line was written {seconds(run.silent)} before this report"
    doubt = "" if run.at_work else ", or broken off"
    return f"still running{doubt}: {done}{last}"


def _list(values: Any) -> str:
    return ",".join(map(str, listing(values))) or "?"
