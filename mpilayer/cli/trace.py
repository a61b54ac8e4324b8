"""``mpilayer trace``: what all ranks of a run did, for Perfetto."""

import argparse
from pathlib import Path

from mpilayer.cli import show
from mpilayer.cli.arguments import add


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the run and the file."""
    parser.description = (
        "Write what all ranks of a run did (of a sparse one rank 0), when and for how "
        "long, in Chrome's trace format: finished, running or broken off, of any mode. "
        "Open the file in Perfetto (https://ui.perfetto.dev) or chrome://tracing."
    )
    add(parser, "run", "a run")
    out = "the file to write, - for standard output (default: %(default)s)"
    add(parser, "-o", out, metavar="FILE.json", default=Path("trace.json"))
    add(parser, "--replace", "replace an older FILE.json")


def run(args: argparse.Namespace) -> None:
    """Write the file, or print it."""
    # Loaded here only: --help needs no NumPy.
    from mpilayer.report.trace import STDOUT, write_trace

    text, remarks = write_trace(args.run, args.out, args.replace)
    for remark in remarks:
        show.say(f"note: {remark}")
    if args.out == STDOUT:
        print(text, end="")
        return
    spans, kilobytes = text.count('"ph": "X"'), len(text.encode()) / 1024
    print(
        f"wrote {spans:,} spans to {args.out} ({kilobytes:,.0f} kB): open it in "
        "https://ui.perfetto.dev"
    )
