"""The program ``mpilayer``, and ``python -m mpilayer``."""

import signal

# Before anything else loads: until the program can obey, SIGINT ends the process as if
# no Python were there, at once, without a traceback, and so that a launcher notices.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from mpilayer import ending, environment


def main() -> int:
    """Run the command line; return the exit code."""
    if environment.launched_size() > 1:
        ending.share_fate(environment.launched_rank())
    from mpilayer.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
