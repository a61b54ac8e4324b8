"""Batch scripts for SLURM as text: what a job asks for, what it runs, how it ends.

Nothing here reads, writes or starts anything; see also :mod:`mpilayer.attend`.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath

from mpilayer.config import Settings, option
from mpilayer.errors import ConfigError, unknown

FOLLOWERS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("finetune", "evaluate"),
    "finetune": ("evaluate",),
    "sparse": ("evaluate",),
    "compare": (),
    "run": (),
    "evaluate": (),
}
"""Command to those that may run on its result."""

_WIDTH = 88
_TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)")
_NAME = re.compile(r"[\w.,@+:/-]+")
_TO_FILL_IN = {"partition": "NAME", "account": "NAME", "mem": "8G"}
"""What some clusters demand and others don't know: comments, where it is not given."""


@dataclass(frozen=True)
class JobConfig(Settings):
    """What is asked of SLURM, and how the ranks are started."""

    nodes: int = option(1, "nodes", least=1)
    ntasks: int = option(1, "ranks, on all nodes together", least=1)
    cpus_per_task: int = option(1, "CPUs of each rank", least=1)
    threads: int = option(
        0, "BLAS threads of each rank; 0: as many as it has CPUs", least=0
    )
    time: str = option(
        "01:00:00",
        "limit of time, [DAYS-]HH:MM:SS; auto: as 'mpilayer plan' predicts, with a "
        "margin",
    )
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
        super().__post_init__()
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
    """A command of mpilayer, as a job runs it."""

    command: str  # one of FOLLOWERS
    data: str
    run: str
    options: tuple[str, ...] = ()  # further arguments
    # One task of a job array for each, with a run directory of its own.
    seeds: tuple[int, ...] = ()
    mark: str = ""  # what it leaves in the run's "complete"; empty: its name
    parts: int = 0  # one task of a job array for each part of a sweep

    @property
    def tasks(self) -> int:
        """Tasks of its job array, 0 for none."""
        return self.parts or len(self.seeds)

    @property
    def is_attended(self) -> bool:
        """Whether it has something to finish: needs signals, and leaves a mark."""
        return self.command != "evaluate"

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
    """Return a limit of time, ``[DAYS-]HH:MM:SS`` (else ConfigError), in seconds."""
    found = _TIME.fullmatch(time)
    if found is None:
        raise ConfigError(
            f"--time must be HH:MM:SS or DAYS-HH:MM:SS; got {time!r}. Give for example "
            "--time 02:30:00."
        )
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def check_chain(commands: Sequence[str]) -> None:
    """Check that each command can run on the result of the one before."""
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


def render(
    step: Step, config: JobConfig, made_by: Sequence[str] = (), scaling: bool = False
) -> str:
    """Return the batch script of a step, with the command that it is ``made_by``.

    ``evaluate`` takes one rank of the configuration. For ``scaling`` the step runs on
    1, 2, 4 and so on to all ranks; what was interrupted starts anew then: its seconds
    would say nothing.
    """
    if step.command == "evaluate":
        config = replace(config, nodes=1, ntasks=1)
    head = ["#!/bin/bash", _comment(made_by), *_asked(step, config, scaling)]
    return _join(
        "\n".join(head),
        "\n".join(_settings(step, config)),
        _command(step, config, scaling),
    )


def render_submit(
    commands: Sequence[str], array: bool, made_by: Sequence[str] = ()
) -> str:
    """Return the script that submits a chain of steps, each after the one before.

    Each has its script ``COMMAND.sh`` beside this one. In an ``array`` each task waits
    for its counterpart alone.
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


def _asked(step: Step, config: JobConfig, scaling: bool) -> Iterator[str]:
    """Yield what SLURM reads."""
    name = "scaling" if scaling else step.command
    words = dict.fromkeys(filter(None, (name, PurePath(step.run).name)))
    share, rest = divmod(config.ntasks, config.nodes)
    values = {
        "job-name": "-".join(words),
        "nodes": str(config.nodes),
        "ntasks": str(config.ntasks),
        "ntasks-per-node": "" if rest else str(share),
        "cpus-per-task": str(config.cpus_per_task),
        "time": config.time,
        **{key: getattr(config, key) for key in _TO_FILL_IN},
        "array": f"0-{step.tasks - 1}" if step.tasks else "",
        # Where sbatch is called: SLURM makes no folder, and says nothing without one.
        "output": config.log or ("%x-%A_%a.out" if step.tasks else "%x-%j.out"),
        "open-mode": "append",
        "signal": f"B:USR1@{config.warn_seconds}" if step.is_attended else "",
    }
    for key, value in values.items():
        if value:
            yield f"#SBATCH --{key}={shlex.quote(value)}"
    yield "#SBATCH --requeue"
    if missing := [key for key in _TO_FILL_IN if not values[key]]:
        yield "# If your cluster asks for it: fill in, and take one # away."
        yield from (f"##SBATCH --{key}={_TO_FILL_IN[key]}" for key in missing)


def _settings(step: Step, config: JobConfig) -> Iterator[str]:
    """Yield the environment and the script's variables."""
    # Not for shellcheck: what is sourced is elsewhere; a dollar in a name is a dollar.
    yield "# shellcheck disable=SC1091,SC2016"
    if config.environment:
        yield f"{config.environment}\n"
    yield "set -u"
    run = shlex.quote(step.run)
    if step.seeds:
        yield f"seeds=({' '.join(map(str, step.seeds))})"
        yield "seed=${seeds[SLURM_ARRAY_TASK_ID]}"
        run += "-seed-$seed"
    yield f"data={shlex.quote(step.data)}"
    yield f"run={run}"
    if step.is_attended and config.launcher == "mpiexec":
        yield _BINDING if config.cpus_per_task == 1 else _NO_BINDING


def _command(step: Step, config: JobConfig, scaling: bool) -> str:
    """Return the last command: it takes the place of the shell, to hear SLURM."""
    run, ranks = ("%run", "%ranks") if scaling else ('"$run"', '"$SLURM_NTASKS"')
    words = [f'mpilayer {step.command} "$data"', f"--run {run}"]
    if step.command in ("finetune", "evaluate"):
        words = [f"mpilayer {step.command} {run}", '--data "$data"']
    if step.is_attended:
        words.append("--replace" if scaling else "--resume auto")
    threads = str(config.threads or '"$SLURM_CPUS_PER_TASK"')
    words.append(f"--threads {threads}")
    if step.seeds and step.is_attended:
        words.append('--seed "$seed"')
    if step.parts:
        words.append(f'--part "$SLURM_ARRAY_TASK_ID/{step.parts}"')
    words += [*_quoted(step.options), '"$@"']
    if not step.is_attended:
        return _wrapped(words)
    launch = ["mpiexec", f"-n {ranks}"]
    if config.launcher == "srun":
        launch = ["srun", f"--mpi={config.mpi}", "--kill-on-bad-exit=1"]
        launch += ["--nodes=%nodes"] if scaling else []
        launch += [f"--ntasks={ranks}", '--cpus-per-task="$SLURM_CPUS_PER_TASK"']
        launch.append("--cpu-bind=cores")
    mark = step.mark or step.command
    mark = f'"part-$SLURM_ARRAY_TASK_ID/{step.parts}"' if step.parts else mark
    attend = f"exec mpilayer attend --mark {mark} --requeues {config.requeues}"
    if scaling:
        attend += f" --ranks {','.join(map(str, scaling_ranks(config.ntasks)))}"
    return f'{attend} "$run" -- \\\n{_wrapped([*launch, *words], "    ")}'


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
