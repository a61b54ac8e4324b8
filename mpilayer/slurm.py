"""Batch scripts for SLURM as text: what a job asks for, what it runs, how it ends.

Nothing here reads, writes or starts anything; see also :mod:`mpilayer.attend`.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath

from mpilayer.config import check, option
from mpilayer.errors import ConfigError, unknown

FOLLOWERS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("finetune", "evaluate"),
    "finetune": ("evaluate",),
    "sparse": ("evaluate",),
    "compare": (),
    "evaluate": (),
}
"""Command to those that may run on its result."""

SUBMIT = "submit.sh"
"""The script of a chain that submits the others."""

_WIDTH = 88
_TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)")
_NAME = re.compile(r"[\w.,@+:/-]+")
_TO_FILL_IN = {"partition": "NAME", "account": "NAME", "mem": "8G"}
"""What some clusters demand and others don't know: comments, where it is not given."""


@dataclass(frozen=True)
class JobConfig:
    """What is asked of SLURM, and how the ranks are started."""

    nodes: int = option(1, "nodes", least=1)
    ntasks: int = option(1, "ranks, on all nodes together", least=1)
    cpus_per_task: int = option(1, "CPUs of each rank", least=1)
    threads: int = option(
        0, "BLAS threads of each rank; 0: as many as it has CPUs", least=0
    )
    time: str = option("01:00:00", "limit of time, [DAYS-]HH:MM:SS")
    partition: str = option("", "partition; empty: the cluster's usual one")
    account: str = option("", "account; empty: yours")
    mem: str = option("", "memory of each node, such as 8G; empty: the cluster's usual")
    launcher: str = option(
        "mpiexec", "what starts the ranks", choices=("mpiexec", "srun")
    )
    mpi: str = option(
        "pmi2",
        "srun: what your MPI speaks: pmi2 (MPICH, Intel MPI), pmix (Open MPI)",
        choices=("pmi2", "pmix"),
    )
    environment: str = option(
        "", "lines of shell that come first, such as 'source .venv/bin/activate'"
    )
    log: str = option(
        "", "file of the job's output; empty: where sbatch is called, JOB-NAME-ID.out"
    )
    warn_seconds: int = option(
        120, "seconds before the limit to save and leave", least=1, below=65536
    )
    requeues: int = option(
        5, "how often an unfinished job may start again by itself", least=0
    )

    def __post_init__(self) -> None:
        check(self)
        if self.nodes > self.ntasks:
            raise ConfigError(
                f"every node needs a rank; got {self.nodes} nodes for {self.ntasks} "
                "ranks. Raise --ntasks, or lower --nodes."
            )
        if self.threads > self.cpus_per_task:
            raise ConfigError(
                f"the threads of a rank need a CPU each; got {self.threads} threads on "
                f"{self.cpus_per_task}. Raise --cpus-per-task, or lower --threads."
            )
        if seconds(self.time) <= self.warn_seconds:
            raise ConfigError(
                f"the warning must come after the start; got {self.warn_seconds} s "
                f"before the end of {self.time}. Raise --time, or lower "
                "--warn-seconds."
            )
        for name in _TO_FILL_IN:
            value = getattr(self, name)
            if value and not _NAME.fullmatch(value):
                raise ConfigError(
                    f"--{name} must be something that SLURM knows, without blanks; got "
                    f"{value!r}. 'sacctmgr show assoc' and 'sinfo' list yours."
                )
        _check_line("--log", self.log)


@dataclass(frozen=True)
class Step:
    """A command of mpilayer, as a job runs it.

    Attributes
    ----------
    command : str
        ``pretrain``, ``finetune``, ``sparse``, ``compare`` or ``evaluate``.
    data, run : str
        The data set and the run directory.
    options : tuple of str
        The command's further arguments.
    seeds : tuple of int
        One task of a job array for each, with a run directory of its own; may be empty.
    mark : str
        What the command leaves in the run's ``complete``; by default its name.
    """

    command: str
    data: str
    run: str
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    mark: str = ""

    def __post_init__(self) -> None:
        if self.command not in FOLLOWERS:
            raise ConfigError(unknown("command", self.command, FOLLOWERS))
        _check_line("DATA.h5", self.data)
        _check_line("--run", self.run)
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                "--seeds must be different numbers, 0 or more; got "
                f"{','.join(map(str, self.seeds))}. Give for example --seeds 0,1,2."
            )


def seconds(time: str) -> int:
    """Return a limit of time in seconds.

    Raises
    ------
    ConfigError
        It is not written as ``[DAYS-]HH:MM:SS``.
    """
    found = _TIME.fullmatch(time)
    if found is None:
        raise ConfigError(
            f"--time must be HH:MM:SS or DAYS-HH:MM:SS; got {time!r}. Give for example "
            "--time 02:30:00."
        )
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def check_chain(commands: Sequence[str]) -> None:
    """Check that each command can run on the result of the one before.

    Raises
    ------
    ConfigError
        Names the first that cannot.
    """
    for before, after in pairwise(commands):
        if after not in FOLLOWERS:
            raise ConfigError(unknown("follower", after, ("finetune", "evaluate")))
        if after not in FOLLOWERS[before]:
            possible = " or ".join(FOLLOWERS[before]) or "nothing"
            raise ConfigError(
                f"after {before} can come {possible}; got {after}. Change --then."
            )


def scaling_ranks(ntasks: int) -> list[int]:
    """Return 1, 2, 4 and so on below all ranks, and all ranks."""
    return [*(2**i for i in range(ntasks.bit_length()) if 2**i < ntasks), ntasks]


def render(step: Step, config: JobConfig, made_by: Sequence[str] = ()) -> str:
    """Return the batch script of a step.

    Parameters
    ----------
    step : Step
        What runs.
    config : JobConfig
        What it runs on; ``evaluate`` takes one rank of it.
    made_by : sequence of str
        The command that asked for the script, for a comment in it.
    """
    if step.command == "evaluate":
        return _render_evaluate(step, config, made_by)
    launch = _launch(config, '"$SLURM_NTASKS"')
    command = _arguments(step, '"$run"', "--resume auto")
    return _join(
        _header(step.command, step, config, made_by),
        _settings(step, config),
        _attended(step, config, [*launch, *command]),
    )


def render_scaling(step: Step, config: JobConfig, made_by: Sequence[str] = ()) -> str:
    """Return the batch script that runs a step on 1, 2, 4 and so on to all ranks.

    A run that was interrupted starts anew: its seconds would say nothing.
    """
    launch = _launch(config, "%ranks", ["--nodes=%nodes"])
    command = _arguments(step, "%run", "--replace")
    ranks = ",".join(map(str, scaling_ranks(config.ntasks)))
    return _join(
        _header("scaling", step, config, made_by),
        _settings(step, config),
        _attended(step, config, [*launch, *command], f"--ranks {ranks}"),
    )


def render_submit(
    commands: Sequence[str], array: bool, made_by: Sequence[str] = ()
) -> str:
    """Return the script that submits a chain of steps, each after the one before.

    Parameters
    ----------
    commands : sequence of str
        Each with its script ``COMMAND.sh`` beside this one.
    array : bool
        The jobs are arrays: each task waits for its counterpart alone.
    made_by : sequence of str
        As in ``render``.
    """
    condition = "aftercorr" if array else "afterok"
    lines = [f'{commands[0]}=$(sbatch --parsable "$@" "$folder/{commands[0]}.sh")']
    for before, after in pairwise(commands):
        lines.append(
            f'{after}=$(sbatch --parsable --dependency="{condition}:${{{before}%%;*}}" '
            f'\\\n    --kill-on-invalid-dep=yes "$@" "$folder/{after}.sh")'
        )
    lines += [f'echo "{name}: job ${{{name}%%;*}}"' for name in commands]
    return _join(
        "#!/bin/bash\n" + _comment(made_by),
        "# Submits the steps. Each starts when the one before has succeeded, and is\n"
        "# cancelled when that has failed. Arguments go to sbatch.",
        'set -euo pipefail\nfolder=$(dirname -- "$0")',
        "\n".join(lines),
    )


def _render_evaluate(step: Step, config: JobConfig, made_by: Sequence[str]) -> str:
    """Return a script without signals and mark: one process, no file to finish."""
    alone = replace(config, nodes=1, ntasks=1)
    return _join(
        _header(step.command, step, alone, made_by, warned=False),
        _settings(step, alone, warned=False),
        _wrapped(_arguments(step, '"$run"')),
    )


def _header(
    name: str,
    step: Step,
    config: JobConfig,
    made_by: Sequence[str],
    warned: bool = True,
) -> str:
    """Return the first lines: what the script is, and what SLURM reads."""
    share, rest = divmod(config.ntasks, config.nodes)
    values = {
        "job-name": _job_name(name, step.run),
        "nodes": str(config.nodes),
        "ntasks": str(config.ntasks),
        "ntasks-per-node": "" if rest else str(share),
        "cpus-per-task": str(config.cpus_per_task),
        "time": config.time,
        **{key: getattr(config, key) for key in _TO_FILL_IN},
        "array": f"0-{len(step.seeds) - 1}" if step.seeds else "",
        # Where sbatch is called: SLURM makes no folder, and says nothing without one.
        "output": config.log or ("%x-%A_%a.out" if step.seeds else "%x-%j.out"),
        "open-mode": "append",
        "signal": f"B:USR1@{config.warn_seconds}" if warned else "",
    }
    lines = [
        f"#SBATCH --{key}={shlex.quote(value)}"
        for key, value in values.items()
        if value
    ]
    lines.append("#SBATCH --requeue")
    if missing := [key for key in _TO_FILL_IN if not values[key]]:
        lines.append("# If your cluster asks for it: fill in, and take one # away.")
        lines += [f"##SBATCH --{key}={_TO_FILL_IN[key]}" for key in missing]
    return "\n".join(["#!/bin/bash", _comment(made_by), *lines])


def _settings(step: Step, config: JobConfig, warned: bool = True) -> str:
    """Return the environment and the script's variables."""
    # Not for shellcheck: what is sourced is elsewhere; a dollar in a name is a dollar.
    lines = ["# shellcheck disable=SC1091,SC2016"]
    lines += [config.environment, ""] if config.environment else []
    lines.append("set -u")
    run = shlex.quote(step.run)
    if step.seeds:
        lines.append(f"seeds=({' '.join(map(str, step.seeds))})")
        lines.append("seed=${seeds[SLURM_ARRAY_TASK_ID]}")
        run += "-seed-$seed"
    lines += [
        f"data={shlex.quote(step.data)}",
        f"run={run}",
        f"export OMP_NUM_THREADS={config.threads or '$SLURM_CPUS_PER_TASK'}",
        "export OPENBLAS_NUM_THREADS=$OMP_NUM_THREADS MKL_NUM_THREADS=$OMP_NUM_THREADS",
        "export BLIS_NUM_THREADS=$OMP_NUM_THREADS",
    ]
    if warned and config.launcher == "mpiexec":
        lines.append(_BINDING if config.cpus_per_task == 1 else _NO_BINDING)
    return "\n".join(lines)


def _attended(
    step: Step, config: JobConfig, command: Iterable[str], more: str = ""
) -> str:
    """Return the last command: it takes the place of the shell, to hear SLURM."""
    mark = f"--mark {step.mark or step.command}"
    start = ["exec mpilayer attend", mark, f"--requeues {config.requeues}", more]
    return f'{" ".join(filter(None, start))} "$run" -- \\\n{_wrapped(command, "    ")}'


def _launch(config: JobConfig, ranks: str, more: Iterable[str] = ()) -> list[str]:
    """Return the words that start ``ranks`` ranks; ``more`` is for srun alone."""
    if config.launcher == "mpiexec":
        return ["mpiexec", f"-n {ranks}"]
    return [
        "srun",
        f"--mpi={config.mpi}",
        "--kill-on-bad-exit=1",
        *more,
        f"--ntasks={ranks}",
        '--cpus-per-task="$SLURM_CPUS_PER_TASK"',
        "--cpu-bind=cores",
    ]


def _arguments(step: Step, run: str, more: str = "") -> list[str]:
    """Return the words of the command itself; the script's own come last."""
    if step.command in ("finetune", "evaluate"):
        start = [f"mpilayer {step.command} {run}", '--data "$data"']
    else:
        start = [f'mpilayer {step.command} "$data"', f"--run {run}"]
    seed = ['--seed "$seed"'] if step.seeds and step.command != "evaluate" else []
    threads = '--threads "$OMP_NUM_THREADS"'
    return [*start, more, threads, *seed, *_quoted(step.options), '"$@"']


def _quoted(words: Iterable[str]) -> list[str]:
    """Return words as bash reads them, a flag and its value as one that stays whole."""
    together: list[str] = []
    for word in map(shlex.quote, words):
        if together and re.fullmatch(r"-[\w-]+", together[-1]) and word[0] != "-":
            together[-1] += f" {word}"
        else:
            together.append(word)
    return together


def _wrapped(words: Iterable[str], indent: str = "") -> str:
    """Return a command on as many lines as it needs."""
    lines, line = [], indent
    for word in filter(None, words):
        if line != indent and len(line) + 1 + len(word) + 2 > _WIDTH:
            lines.append(f"{line} \\")
            line = f"{indent}    {word}"
        else:
            line += word if line == indent else f" {word}"
    return "\n".join([*lines, line])


def _comment(made_by: Sequence[str]) -> str:
    """Return the command that made a script, as a comment."""
    words = _quoted(made_by) or ["Written by mpilayer."]
    return _wrapped((word.replace("\n", "\n# ") for word in words), "# ")


def _job_name(name: str, run: str) -> str:
    return "-".join(dict.fromkeys(filter(None, (name, PurePath(run).name))))


def _join(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _check_line(what: str, text: str) -> None:
    if not text.isprintable():
        raise ConfigError(
            f"{what} must have no line breaks or control characters; got {text!r}. "
            "Choose another name."
        )


_BINDING = (
    "export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself"
)
_NO_BINDING = (
    "# A rank's threads must not share one core, to which Open MPI would bind them.\n"
    "export PRTE_MCA_hwloc_default_binding_policy=none\n"
    "export OMPI_MCA_hwloc_base_binding_policy=none"
)
