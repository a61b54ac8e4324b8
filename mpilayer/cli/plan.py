"""``mpilayer plan``: what a training will take, on how many ranks."""

import argparse
import json
from pathlib import Path
from typing import Any

from mpilayer.cli import show
from mpilayer.cli.arguments import add, add_inner, inner_parser, numbers
from mpilayer.cli.options import add_config, config_from
from mpilayer.cli.training import TRAINING
from mpilayer.config import PretrainConfig
from mpilayer.errors import ConfigError
from mpilayer.plan.ahead import COMMANDS, MOST_RANKS, Question, look_ahead
from mpilayer.plan.links import PRESETS
from mpilayer.plan.model import Forecast, Outlook
from mpilayer.words import count


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of what to plan; its own parser reads the rest."""
    parser.description = (
        "Predict seconds, memory and the best layout of a training, from a few seconds "
        f"of measurement. COMMAND is one of {', '.join(COMMANDS)}; 'mpilayer plan "
        "COMMAND --help' lists its options."
    )
    add_inner(parser, COMMANDS)


def run(args: argparse.Namespace) -> None:
    """Measure, predict, print."""
    parser = inner_parser(args, "plan", COMMANDS)
    _configure(parser, args.name)
    given = parser.parse_args(args.rest)
    config = config_from(given, TRAINING[args.name].config, args.name)
    if not all(1 <= n <= MOST_RANKS for n in (*given.ranks, given.hosts)):
        raise ConfigError(
            f"--ranks and --hosts must be from 1 to {MOST_RANKS}; got "
            f"{','.join(map(str, given.ranks)) or 'no ranks'} and {given.hosts}. Give "
            "such numbers."
        )
    names = ["ranks", "hosts", "cluster", "links", "measured"]
    names += ["layers"] if args.name == "finetune" else []
    asked = {name: getattr(given, name) for name in names}
    found = look_ahead(Question(args.name, config, given.data, **asked), show.say)
    if not found.forecasts:
        whys = (f"{count(n, 'rank')}: {why}" for n, why in found.refused.items())
        raise ConfigError(
            f"--ranks must name a number that can train. {' '.join(whys)}"
        )
    if given.json:
        print(json.dumps(found.to_json()))
    else:
        _show(found)


def _configure(parser: argparse.ArgumentParser, command: str) -> None:
    parser.description = f"Predict what 'mpilayer {command}' will take."
    group = parser.add_argument_group("ranks")
    several: dict[str, Any] = {"type": numbers, "metavar": "N[,N...]", "default": ()}
    if command == "finetune":
        add(parser, "data", "the data set, or a pre-trained run")
        usual = PretrainConfig().layers
        listed = ",".join(map(str, usual))
        text = f"layers of the stack, if DATA.h5 is no run (default: {listed})"
        add(parser, "--layers", text, **{**several, "default": usual})
    else:
        add(parser, "data")
    text = "how many ranks (default: 1, 2, 4 and so on, to the cores here)"
    add(group, "--ranks", text, **several)
    add(group, "--hosts", "on how many hosts (default: 1)", type=int, default=1)
    presets = {"metavar": "PRESET", "default": ""}
    add(group, "--cluster", f"network of the hosts: {', '.join(PRESETS)}", **presets)
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    text = "messages as 'mpilayer doctor --json' has measured them there"
    add(group, "--links", text, **file)
    text = "take what an earlier 'plan --json' has measured, on any machine"
    add(group, "--measured", text, **file)
    add(parser, "--json")
    add_config(parser, TRAINING[command].config)


def _show(found: Outlook) -> None:
    """Print a row a number of ranks and layout, and what is best."""
    out, fastest, cheapest = show.console(), found.fastest, found.cheapest
    head = ("ranks", "", "layout", "seconds", "from-to", "eff.", "waits", "bound by")
    if found.forecasts:
        rows = [_row(f, fastest, cheapest) for f in found.forecasts]
        made = show.table(f"{found.measured.command}: predicted", head, rows)
        for place in (1, 2, len(head) - 1):
            made.columns[place].justify = "left"
        out.print(made)
    for ranks, why in found.refused.items():
        out.print(f"{count(ranks, 'rank')}: {why}")
    for name, best in (("fastest", fastest), ("fewest rank-hours", cheapest)):
        if best:
            told = f", {best.option}" if best.option else ""
            out.print(
                f"{name}: {count(best.ranks, 'rank')}{told}; "
                f"{_bytes(best.cost.rank_bytes)} a rank, "
                f"{_bytes(best.cost.host_bytes)} a host; "
                f"for a job: --time {best.limit}"
            )
    for note in found.notes:
        out.print(f"note: {note}")


def _row(
    plan: Forecast, fastest: Forecast | None, cheapest: Forecast | None
) -> list[str]:
    mark = "*" * (plan is fastest) + "$" * (plan is cheapest)
    cost = plan.cost
    return [
        str(plan.ranks),
        mark,
        cost.layout,
        f"{cost.seconds:.3g}",
        f"{plan.low:.3g}-{plan.high:.3g}",
        "-" if plan.efficiency is None else f"{plan.efficiency:.2f}",
        f"{cost.waiting / cost.seconds:.0%}",
        cost.bound,
    ]


def _bytes(n: int) -> str:
    return f"{n / 1e9:.2g} GB" if n >= 10**9 else f"{n / 1e6:.3g} MB"
