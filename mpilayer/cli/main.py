"""The program ``mpilayer``: finds the command, reports errors, sets the exit code."""

import argparse
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from mpilayer import __version__, ending, environment, errors
from mpilayer.cli import lines
from mpilayer.ending import EXIT_INTERRUPTED
from mpilayer.interrupt import EXIT_RESUME, Interrupted

COMMANDS = {
    "data": "make, fetch and describe data sets",
    "pretrain": "train all layers of a stack, at once or one after the other",
    "finetune": "train a stack end to end: autoencoder, classifier or regressor",
    "sparse": "train a sparse autoencoder on rows that all ranks share",
    "compare": "average against exact sparsity term, from one start",
    "run": "carry out a whole experiment from one file",
    "config": "write a commented file of settings",
    "resume": "go on with an interrupted run",
    "watch": "show how far a run is, live",
    "evaluate": "errors of an autoencoder beside PCA, a classifier or a regressor",
    "encode": "write the codes of a data set",
    "predict": "write the classes or numbers that a run predicts for a data set",
    "reconstruct": "write the reconstructions of a data set",
    "report": "write one page about runs, with all figures in it",
    "trace": "write what every rank did, and when, as a trace",
    "export": "write a trained model for other programs",
    "plan": "predict seconds, memory and the best number of ranks",
    "job": "write a SLURM batch script",
    "attend": "run a command within a batch script, and requeue the job",
    "bench": "measure speed as ratios, in paired runs",
    "doctor": "look for what would break or slow down a run",
}
"""Name to summary; the module of that name holds the command, or one of these."""

_HOMES = {
    "training": ("pretrain", "finetune", "sparse", "compare", "resume", "run"),
    "use": ("evaluate", "encode", "predict", "reconstruct", "export", "report"),
}
# Those that ranks carry out; all others are of one process.
_TOGETHER = {*_HOMES["training"], "evaluate", "doctor"}

EXIT_USER_ERROR = 2

# Seconds for rank 0 to print what all ranks have found where MPI cannot join them.
_LAST_WORDS = 1.0
# Seconds after which an interrupt that had no effect is repeated; enough to clean up.
_HEARD_AFTER = 1.0


class Parser(argparse.ArgumentParser):
    """A parser whose errors are like all others: one message, exit code 2.

    Options must be written in full: an abbreviation may become another option's.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse unknown options, and guess what was meant."""
        found, others = super().parse_known_args(args, namespace)
        if others:
            raise errors.ConfigError(
                f"unrecognized arguments: {' '.join(others)}.{self._guess(others)} "
                f"See '{self.prog} --help'."
            )
        return found, others

    def _guess(self, others: Sequence[str]) -> str:
        """Return which options may have been meant."""
        options = [name for a in self._actions for name in a.option_strings]
        # Without the hyphens, in which all are alike.
        legal = [name[2:] for name in options if name.startswith("--")]
        guesses = []
        for word in others:
            if word.startswith("--"):
                name = word[2:].partition("=")[0]
                begun = [option for option in legal if option.startswith(name)]
                guesses += (get_close_matches(name, legal, n=1) or begun)[:1]
        meant = " and ".join(f"--{name}" for name in guesses)
        return f" Did you mean {meant}?" if meant else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Answer a wrong command of a command as one of the program's."""
        choices = action.choices
        if action.nargs == argparse.PARSER and choices:
            errors.check_known("command", str(value), list(map(str, choices)))
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise errors.ConfigError(f"{message}. See '{self.prog} --help'.")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help and version once, not from every rank."""
        if environment.launched_rank() == 0:
            super()._print_message(message, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process; return the exit code.

    0, or 2 for a user's mistake, 75 when a run was asked to end and can be resumed, 130
    when interrupted otherwise. Any other exception leaves this function; with several
    ranks it ends them all (see ``mpilayer.ending``).
    """
    if argv is None:
        environment.use_utf8()
    lines.prepare()
    environment.prepare()
    warnings.showwarning = _warn
    arguments = list(sys.argv[1:] if argv is None else argv)
    alone = environment.launched_size() == 1
    if alone and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # files begun are removed
            signal.signal(number, _interrupt)
    try:
        _dispatch(arguments)
    except errors.MpilayerError as error:
        return _report(error)
    except Interrupted as end:
        if environment.launched_rank() == 0:
            lines.to_stderr(f"mpilayer: {end}")
        return EXIT_RESUME
    except OSError as error:
        return _report(errors.FileError.of(error))
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return EXIT_INTERRUPTED
    return 0


def _warn(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """Print our own warnings as all lines are; others as Python does."""
    if not issubclass(category, errors.RunWarning):
        _python_warns(message, category, *where, **more)
    # What one rank knows alone is said by that rank, all else once.
    elif environment.launched_rank() == 0 or issubclass(category, errors.FileWarning):
        lines.to_stderr(f"warning: {message}")


_python_warns = warnings.showwarning


def _interrupt(_: int, __: object) -> NoReturn:
    """End this process by an exception, again until it is heard."""
    # Python drops one that is raised while it runs a finalizer, and says so.
    sys.unraisablehook = _say_nothing_of_interrupts
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _HEARD_AFTER)
    raise KeyboardInterrupt


def _say_nothing_of_interrupts(dropped: "sys.UnraisableHookArgs") -> None:
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def _dispatch(arguments: list[str]) -> None:
    width = max(map(len, COMMANDS))
    listed = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    explained = ["", "'mpilayer COMMAND --help' explains a command."]
    top = Parser(
        prog="mpilayer",
        description="Trains deep and sparse autoencoders over MPI.",
        epilog="\n".join(["commands:", *listed, *explained]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"mpilayer {__version__}")
    top.add_argument("command", metavar="COMMAND", nargs="?")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = top.parse_args(arguments)
    if chosen.command is None:
        top.print_help()
        return
    errors.check_known("command", chosen.command, COMMANDS)
    name = chosen.command
    home = next((home for home, names in _HOMES.items() if name in names), "")
    # What only other commands need is not imported.
    command: Any = import_module(f"mpilayer.cli.{home or name}")
    if home:
        command = command.COMMANDS[name]
    parser = Parser(prog=f"mpilayer {name}", description=f"{COMMANDS[name]}.")
    command.configure(parser)
    args, n_ranks = parser.parse_args(chosen.rest), environment.launched_size()
    if name not in _TOGETHER and n_ranks > 1:
        raise errors.ConfigError(
            f"'mpilayer {name}' must run as one process; found {n_ranks} "
            "ranks. Start it without mpiexec."
        )
    command.run(args)
    if reason := lines.lost():
        words = f"standard output must take all results; {reason.lower()}"
        if home != "training":
            raise errors.DataError(f"{words}. Make room, and repeat the command.")
        # The exit code tells of the training.
        lines.to_stderr(f"warning: {words}. All of them are in the run's folder.")


def _report(error: errors.MpilayerError) -> int:
    """Print an error once: that of all ranks, or the one that a single rank has."""
    together = environment.launched_size() > 1
    if together and not error.collective:
        if ending.is_joined():
            lines.to_stderr(f"mpilayer: error: {error}")
            ending.end_all(EXIT_USER_ERROR)
        # That of the lowest rank that has one; ranks that have none wait for this one,
        # or will.
        try:
            import_module("mpilayer.parallel.start").start(error)
        except errors.MpilayerError as found:
            error = found if found.collective else error
    if environment.launched_rank() == 0:
        lines.to_stderr(f"mpilayer: error: {error}")
    elif not error.collective:
        # A launcher that sees a rank end with an error may end the others.
        time.sleep(_LAST_WORDS)
    return EXIT_USER_ERROR
