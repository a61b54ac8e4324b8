"""``mpilayer report``: one page about runs, with all figures in it."""

import argparse
from pathlib import Path

from mpilayer.cli import show
from mpilayer.cli.arguments import require_one_process
from mpilayer.report.build import write_report


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write one HTML page about runs: finished, running or broken off, of any mode. "
        "It needs nothing but a browser, and no network."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="DIR", help="a run, or several"
    )
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE.html",
        help="the page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DATA.h5", help="where the runs' data set is now"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="write every figure as a file, too",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace files that are there already"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page, and say where it is.

    Raises
    ------
    ConfigError
        Several processes were started, or see ``write_report``.
    """
    require_one_process("report")
    remarks = write_report(args.runs, args.out, args.figures, args.replace, args.data)
    for remark in remarks:
        show.say(f"note: {remark}")
    kilobytes = args.out.stat().st_size / 1024
    print(f"wrote {args.out} ({kilobytes:,.0f} kB): open it in a browser")
    if args.figures is not None:
        print(f"wrote its figures to {args.figures}")
