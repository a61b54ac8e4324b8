"""``mpilayer job``: write the batch script of a command for SLURM."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpilayer import files, slurm
from mpilayer.cli import show
from mpilayer.cli.arguments import add, numbers
from mpilayer.cli.options import add_config, add_option, add_safety, config_from
from mpilayer.cli.training import TRAINING
from mpilayer.config import FinetuneConfig, flag, options_of
from mpilayer.errors import ConfigError, check_known
from mpilayer.runs.session import Safety
from mpilayer.runs.tasks import TASKS
from mpilayer.train.groups import check_ranks, resolved
from mpilayer.train.layer import layer_shapes
from mpilayer.train.teams import places_for

CONFIGS = {name: command.config for name, command in TRAINING.items()}
"""Command to what decides it."""

_SCALED = ("sparse", "pretrain")
_NAMES = (*CONFIGS, "scaling")
_SAFETY = ("checkpoint_every", "checkpoint_seconds", "max_time")
_STDOUT = Path("-")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of what to run; its own parser reads the rest."""
    parser.description = (
        "Write a SLURM batch script that runs a command of mpilayer, saves before the "
        "time is over, and starts again until the command has come to its end. "
        f"COMMAND is one of {', '.join(_NAMES)}; 'mpilayer job COMMAND --help' lists "
        "its options. 'scaling' runs on 1, 2, 4 and so on to all ranks."
    )
    add(parser, "name", ", ".join(_NAMES), metavar="COMMAND", nargs="?")
    add(parser, "rest", argparse.SUPPRESS, nargs=argparse.REMAINDER)
    parser.set_defaults(parser=type(parser))


def run(args: argparse.Namespace) -> None:
    """Check everything, then write."""
    if args.name is None:
        raise ConfigError(
            f"COMMAND must come first, one of {', '.join(_NAMES)}; found none. Try "
            "'mpilayer job pretrain --help'."
        )
    check_known("command", args.name, _NAMES)
    words = ["mpilayer", "job", args.name, *args.rest]
    made_by = [word for word in words if word != "--replace"]
    scaling = args.name == "scaling"
    command = _mode(args.rest) if scaling else args.name
    parser = args.parser(prog=f"mpilayer job {args.name}")
    _configure(parser, command, scaling)
    given = parser.parse_args(args.rest)
    _check(given, command)
    _write(given, _scripts(given, command, scaling, made_by))


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
    add(parser, "data", type=_no_option)
    add(parser, "--run", "the run directory of the job", type=_no_option, required=True)
    script = "the script to write, - for standard output; a folder with --then"
    add(parser, "-o", script, metavar="FILE", required=True)
    add(parser, "--replace", "replace scripts that are there already")
    parser.set_defaults(seeds=(), then=())
    if scaling:
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
    add_config(parser, CONFIGS[command])


def _no_option(name: str) -> str:
    """Return a file's name so that no command takes it for an option."""
    return f"./{name}" if name.startswith("-") else name


def _check(given: argparse.Namespace, command: str) -> None:
    """Refuse now what the commands would refuse after hours in the queue."""
    slurm.check_chain([command, *given.then])
    if given.seeds and given.seed is not None:
        raise ConfigError(
            f"--seed and --seeds exclude each other; got {given.seed} and "
            f"{','.join(map(str, given.seeds))}. Leave one of them out."
        )
    if command != "finetune":  # whose settings are read for its mark
        config = config_from(given, CONFIGS[command], command)
        if command == "pretrain":
            tasks, nodes = given.ntasks, given.nodes
            hosts = [str(task * nodes // tasks) for task in range(tasks)]
            places_for(config, hosts)
            if "finetune" in given.then:
                shapes = layer_shapes(config, 1)
                check_ranks(resolved(FinetuneConfig(), shapes, hosts), shapes, hosts)


def _mark(given: argparse.Namespace, command: str) -> str:
    """Return what a command leaves in ``complete``: finetune leaves its task's name."""
    if command != "finetune":
        return command
    config = config_from(given, FinetuneConfig, TRAINING["finetune"].section(given))
    return TASKS[config.task].name


def _scripts(
    given: argparse.Namespace, command: str, scaling: bool, made_by: list[str]
) -> dict[Path, str]:
    """Return the text of each file to write."""
    config = slurm.JobConfig(
        **{name: getattr(given, name) for name in options_of(slurm.JobConfig)}
    )
    common: list[str] = []
    if given.config is not None:
        common = ["--config", _no_option(str(given.config))]

    def script(command: str, options: list[str], mark: str) -> str:
        words = tuple(options)
        step = slurm.Step(command, given.data, given.run, words, given.seeds, mark)
        return slurm.render(step, config, made_by, scaling)

    options = [*common, *_passed_on(given, CONFIGS[command])]
    first = script(command, options, _mark(given, command))
    if not given.then:
        return {given.out: first}
    if given.out == _STDOUT:
        raise ConfigError(
            f"--then needs a folder for {len(given.then) + 2} scripts; got -o -. Give "
            "-o FOLDER."
        )
    scripts = {given.out / f"{command}.sh": first}
    # Followers have no arguments but the file of settings.
    alone = argparse.Namespace(
        config=given.config, **dict.fromkeys(options_of(FinetuneConfig))
    )
    for follower in given.then:
        mark = _mark(alone, follower)
        text = script(follower, common if follower in CONFIGS else [], mark)
        scripts[given.out / f"{follower}.sh"] = text
    chain = [command, *given.then]
    submit = slurm.render_submit(chain, bool(given.seeds), made_by)
    return scripts | {given.out / slurm.SUBMIT: submit}


def _passed_on(given: argparse.Namespace, cls: Any) -> list[str]:
    """Return the settings that were given, as words of the command."""
    words: list[str] = []
    usual = {name: getattr(Safety(), name) for name in _SAFETY}
    usual |= dict.fromkeys(options_of(cls))
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
        if path.exists() and not given.replace:
            raise ConfigError(
                f"-o must name a new file; {path} is there already. Replace it with "
                "--replace, or choose another name."
            )
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
    chain = given.out / slurm.SUBMIT
    submit = f"bash {chain}" if given.then else f"sbatch {given.out}"
    show.say(f"Submit it from this folder with: {submit}")
    if not Path(given.data).exists():
        show.say(f"note: {given.data} is not there yet; the job needs it.")
