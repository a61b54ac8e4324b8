"""``mpilayer job``: write the batch script of a command for SLURM."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpilayer import files, slurm
from mpilayer.cli import show
from mpilayer.cli.arguments import add, add_inner, inner_parser, numbers, whole
from mpilayer.cli.options import (
    add_config,
    add_option,
    add_safety,
    add_sweep,
    config_from,
)
from mpilayer.cli.training import TRAINING
from mpilayer.config import SWEEP, FinetuneConfig, PretrainConfig, flag, options_of
from mpilayer.errors import ConfigError, check_known
from mpilayer.plan.ahead import Question, seconds_of
from mpilayer.plan.model import limit_of
from mpilayer.runs.experiment import NAME, Plan
from mpilayer.runs.session import Safety
from mpilayer.runs.tasks import TASKS
from mpilayer.sweep.plan import SweepPlan, read_sweep
from mpilayer.train.groups import check_ranks, resolved
from mpilayer.train.layer import layer_shapes
from mpilayer.train.teams import places_for

CONFIGS = {name: command.config for name, command in TRAINING.items()}
"""Command to what decides it."""

_SCALED = ("sparse", "pretrain")
_NAMES = (*CONFIGS, "run", "scaling")
_SAFETY = ("checkpoint_every", "checkpoint_seconds", "max_time")
_AUTO, _EVALUATING = "auto", 300  # seconds, of data that fit into memory
_STDOUT = Path("-")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of what to run; its own parser reads the rest."""
    parser.description = (
        "Write a SLURM batch script that runs a command of mpilayer, saves before the "
        "time is over, and starts again until the command has come to its end. "
        f"COMMAND is one of {', '.join(_NAMES)}; 'mpilayer job COMMAND --help' lists "
        "its options. 'scaling' runs on 1, 2, 4 and so on to all ranks."
    )
    add_inner(parser, _NAMES)


def run(args: argparse.Namespace) -> None:
    """Check everything, then write."""
    parser = inner_parser(args, "job", _NAMES)
    words = ["mpilayer", "job", args.name, *args.rest]
    made_by = [word for word in words if word != "--replace"]
    scaling = args.name == "scaling"
    command = _mode(args.rest) if scaling else args.name
    _configure(parser, command, scaling)
    given = parser.parse_args(args.rest)
    if command == "run":
        scripts = _of_experiment(given, made_by)
    else:
        scripts = _of_training(given, command, scaling, made_by)
    _write(given, scripts)


def _mode(rest: list[str]) -> str:
    """Return the command that scaling runs: its options depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", nargs="?", default=_SCALED[0])
    mode = str(parser.parse_known_args(rest)[0].mode)
    check_known("mode", mode, _SCALED)
    return mode


def _configure(parser: argparse.ArgumentParser, command: str, scaling: bool) -> None:
    """Add the arguments of a job: data, script, SLURM, the command's own."""
    parser.description = f"Write a SLURM batch script for 'mpilayer {command}'."
    if command == "run":
        what = "an experiment, or a sweep of it"
        add(parser, "data", what, type=_no_option, metavar="EXPERIMENT.toml")
    else:
        add(parser, "data", type=_no_option)
    add(parser, "--run", "the run directory of the job", type=_no_option, required=True)
    script = "the script to write, - for standard output; a folder with --then"
    add(parser, "-o", script, metavar="FILE", required=True)
    add(parser, "--replace", "replace scripts that are there already")
    parser.set_defaults(seeds=(), then=())
    if command == "run":
        add_sweep(parser)
        array = "a job array of so many tasks, each with its part of the sweep's runs"
        count = whole("a number, 1 or more", 1)
        add(parser, "--array", array, type=count, default=0, metavar="N")
    elif scaling:
        add(parser, "--mode", "what runs", metavar="{" + ",".join(_SCALED) + "}")
    else:
        array = "a job array, one task a seed, in the run directories DIR-seed-K"
        add(parser, "--seeds", array, type=numbers, metavar="K[,K...]")
        then = (
            "commands to run afterwards on the result, in jobs of their own: finetune, "
            "evaluate. Settings of finetune come from --config"
        )
        several = {"type": lambda text: tuple(text.split(","))}
        add(parser, "--then", then, metavar="COMMAND[,COMMAND]", **several)
    group = parser.add_argument_group("job")
    for item in options_of(slurm.JobConfig).values():
        add_option(group, item, item.default)
    add_safety(parser, starts=False)
    if command in CONFIGS:
        add_config(parser, CONFIGS[command])


def _no_option(name: str) -> str:
    """Return a file's name so that no command takes it for an option."""
    return f"./{name}" if name.startswith("-") else name


def _of_experiment(given: argparse.Namespace, made_by: list[str]) -> dict[Path, str]:
    """Return the script of an experiment or a sweep."""
    mark = SWEEP if isinstance(_read(given), SweepPlan) else NAME
    if given.time == _AUTO:
        raise ConfigError(
            "--time auto is for a single training; got job run. Give a time, such as "
            "--time 08:00:00."
        )
    words = [word for change in given.set for word in ("--set", change)]
    words += ["--seeds", given.seeds] if given.seeds else []
    words += ["--at-once", str(given.at_once)] if given.at_once > 1 else []
    words += ["--yes"] if given.yes else []
    words += _passed_on(given)
    parts = given.array if given.array > 1 else 0
    step = slurm.Step("run", given.data, given.run, tuple(words), (), mark, parts)
    return {given.out: slurm.render(step, _config(given, given.time), made_by)}


def _read(given: argparse.Namespace) -> SweepPlan | Plan:
    """Return the sweep or the experiment that a job carries out, checked."""
    file, seeds = Path(given.data), given.seeds or None
    plan = read_sweep(file, given.set, seeds, Path(given.run), given.yes)
    n = len(plan.members) if isinstance(plan, SweepPlan) else 0
    if not n and (given.array or given.at_once > 1):
        raise ConfigError(
            "--array and --at-once are for sweeps; this is one experiment. Give "
            "--seeds, or leave them out."
        )
    if given.array > n:
        raise ConfigError(
            f"--array must be at most the runs of the sweep, {n}; got {given.array}. "
            "Give fewer tasks."
        )
    if given.at_once < 1 or given.ntasks % given.at_once:
        raise ConfigError(
            f"--at-once must be a part of the ranks, {given.ntasks}; got "
            f"{given.at_once}. Change it, or --ntasks."
        )
    return plan


def _config(given: argparse.Namespace, time: str) -> slurm.JobConfig:
    asked = {name: getattr(given, name) for name in options_of(slurm.JobConfig)}
    return slurm.JobConfig(**{**asked, "time": time})


def _of_training(
    given: argparse.Namespace, command: str, scaling: bool, made_by: list[str]
) -> dict[Path, str]:
    """Return the scripts of a training, and of what comes after it, all checked."""
    chain = [command, *given.then]
    slurm.check_chain(chain)
    if given.seeds and given.seed is not None:
        raise ConfigError(
            f"--seed and --seeds exclude each other; got {given.seed} and "
            f"{','.join(map(str, given.seeds))}. Leave one of them out."
        )
    config = config_from(given, CONFIGS[command], TRAINING[command].section(given))
    tuning: Any = config
    if "finetune" in given.then:  # which is given the file of settings alone
        none = dict.fromkeys(options_of(FinetuneConfig))
        alone = argparse.Namespace(config=given.config, **none)
        tuning = config_from(alone, FinetuneConfig, "finetune")
    if command == "pretrain":
        _check_ranks(given, config, tuning)
    limits = {}
    if given.time == _AUTO:
        limits = _limits(given, command, scaling, config, tuning)
    job = _config(given, limits.get(command, given.time))
    if given.then and given.out == _STDOUT:
        raise ConfigError(
            f"--then needs a folder for {len(given.then) + 2} scripts; got -o -. Give "
            "-o FOLDER."
        )
    settings = ["--config", _no_option(str(given.config))] if given.config else []
    options: dict[str, list[str]] = {"finetune": settings, "evaluate": []}
    options[command] = [*settings, *_passed_on(given, CONFIGS[command])]
    texts = {}
    for name in chain:
        # Fine-tuning leaves the name of its task.
        mark = TASKS[tuning.task].name if name == "finetune" else ""
        words = tuple(options[name])
        step = slurm.Step(name, given.data, given.run, words, given.seeds, mark)
        own = replace(job, time=limits.get(name, job.time))
        texts[name] = slurm.render(step, own, made_by, scaling)
    if not given.then:
        return {given.out: texts[command]}
    texts["submit"] = slurm.render_submit(chain, bool(given.seeds), made_by)
    return {given.out / f"{name}.sh": text for name, text in texts.items()}


def _check_ranks(
    given: argparse.Namespace, config: PretrainConfig, tuning: Any
) -> None:
    """Check that all ranks have something to do, in pre-training and afterwards."""
    hosts = [str(task * given.nodes // given.ntasks) for task in range(given.ntasks)]
    places_for(config, hosts)
    if "finetune" in given.then:
        shapes = layer_shapes(config, 1)
        check_ranks(resolved(tuning, shapes, hosts), shapes, hosts)


def _limits(
    given: argparse.Namespace,
    command: str,
    scaling: bool,
    config: Any,
    tuning: FinetuneConfig,
) -> dict[str, str]:
    """Return a limit of time for each command of a chain, as predicted."""
    ranks = slurm.scaling_ranks(given.ntasks) if scaling else [given.ntasks]
    data = Path(given.run if command == "finetune" else given.data)
    if not data.exists():
        raise ConfigError(
            f"--time auto measures on the data, and finetune on its pre-trained run; "
            f"there is no {data}. Give a time, or write the job when it is there."
        )
    what = "sparse" if command == "compare" else command
    question = Question(what, config, data, ranks=tuple(ranks), hosts=given.nodes)
    # A comparison is two runs, one after the other.
    runs = 2 if command == "compare" else 1
    limits = {command: limit_of(seconds_of(question, show.say) * runs)}
    if "finetune" in given.then:
        layers = config.layers
        more = replace(question, command="finetune", config=tuning, layers=layers)
        limits["finetune"] = limit_of(seconds_of(more, show.say))
    limits["evaluate"] = limit_of(_EVALUATING)
    told = (f"{name} {limits[name]}" for name in (command, *given.then))
    show.say(f"limits of time: {', '.join(told)}")
    return limits


def _passed_on(given: argparse.Namespace, cls: Any = None) -> list[str]:
    """Return the settings that were given, as words of the command."""
    words: list[str] = []
    usual = {name: getattr(Safety(), name) for name in _SAFETY}
    usual |= dict.fromkeys(options_of(cls) if cls else ())
    for name, default in usual.items():
        value = getattr(given, name)
        if isinstance(value, bool):
            words.append(flag(name if value else f"no_{name}"))
        elif value != default:
            entries = value if isinstance(value, tuple) else (value,)
            text = ",".join(map(str, entries))
            # argparse takes a list that begins with a minus for a flag.
            negative = text.startswith("-")
            words += [f"{flag(name)}={text}"] if negative else [flag(name), text]
    return words


def _write(given: argparse.Namespace, scripts: Mapping[Path, str]) -> None:
    """Write all scripts or none, and the folder that SLURM needs for ``--log``."""
    if given.out == _STDOUT:
        print("".join(scripts.values()), end="")
        return
    for path in scripts:
        files.check_output(path, (), given.replace)
    try:
        # SLURM ends a job without a word when this folder is missing.
        Path(given.log).parent.mkdir(parents=True, exist_ok=True)
        for path, text in scripts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, text)
    except OSError as error:
        raise ConfigError(
            f"scripts and the folder of the job's output must be writable; "
            f"{error.filename}: {error.strerror}. Choose other names."
        ) from error
    submit = f"bash {given.out}/submit.sh" if given.then else f"sbatch {given.out}"
    show.say(f"Submit it from this folder with: {submit}")
    if not Path(given.data).exists():
        show.say(f"note: {given.data} is not there yet; the job needs it.")
