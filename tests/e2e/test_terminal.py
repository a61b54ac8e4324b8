"""Whoever reads the output, or nobody, or in ASCII: training goes on to its end."""

import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.support import launch

OPTIONS = ("--layers", "8,4", "--epochs", 3, "--minibatch", 50)

# Programs that change their standard streams, and become mpilayer.
BECOME = """
import os, pty, sys
{change}
os.execv(sys.executable, [sys.executable, "-m", "mpilayer", *sys.argv[1:]])
"""
CLOSED = "[os.close(n) for n in {}]"
NO_READER = "r, w = os.pipe(); os.close(r); [os.dup2(w, n) for n in {}]"
# Its name goes with its other end: it cannot be opened any more.
NO_TERMINAL = "m, s = pty.openpty(); [os.dup2(s, n) for n in {}]; os.close(m)"
FULL = "f = os.open('/dev/full', os.O_WRONLY); [os.dup2(f, n) for n in {}]"


def become(change, numbers):
    """Return a program for ``launch.run``, some of whose streams are changed."""
    return ("-c", BECOME.format(change=change.format(numbers)))


def pretrain(tiny, run, **options):
    """Pre-train a small stack; return how that ended."""
    return launch.run("pretrain", tiny, "--run", run, *OPTIONS, **options)


def assert_trained(run):
    """Demand a run that is complete."""
    assert (run / "complete").read_text().split() == ["pretrain"]


@pytest.mark.parametrize(
    ("change", "numbers", "ranks"),
    [
        (CLOSED, (1,), 0),
        (CLOSED, (2,), 2),
        (CLOSED, (0, 1, 2), 0),
        (CLOSED, (0, 1, 2), 2),
        (NO_READER, (1,), 2),
        (NO_READER, (1, 2), 0),
        (NO_READER, (1, 2), 2),
        (NO_TERMINAL, (0, 1, 2), 0),
        (NO_TERMINAL, (0, 1, 2), 2),
        (FULL, (2,), 0),
    ],
)
def test_nobody_listens(tiny, tmp_path, change, numbers, ranks):
    run = tmp_path / "run"
    done = pretrain(tiny, run, program=become(change, numbers), ranks=ranks).ok()
    assert "Traceback" not in done.stderr, done
    assert ("Pre-training took" in done.stdout) == (1 not in numbers), done
    assert ("layer 2: 3/3" in done.stderr) == (2 not in numbers), done
    assert_trained(run)


def test_a_full_disk_for_the_results_of_training(tiny, tmp_path):
    run = tmp_path / "run"
    done = pretrain(tiny, run, program=become(FULL, (1,))).ok()
    assert "warning: standard output must take all results; no space" in done.stderr
    assert_trained(run)


def test_a_full_disk_for_results_alone(pretrained):
    done = launch.run("evaluate", pretrained, "--json", program=become(FULL, (1,)))
    launch.assert_user_error(done, "standard output must take all results; no space")


def test_an_error_that_nobody_reads(tmp_path):
    program = become(CLOSED, (2,))
    assert launch.run("data", "info", tmp_path / "x.h5", program=program).code == 2


def test_the_terminal_is_closed_on_the_way(tiny, tmp_path):
    # Without mpiexec: MPICH's ends its ranks when it cannot write.
    run = tmp_path / "run"
    command = [sys.executable, "-m", "mpilayer", "pretrain"]
    options = ["--layers", "8,4", "--epochs", "1000", "--minibatch", "50"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*command, tiny, "--run", run, *options],
        env=launch.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        os.close(theirs)
        try:
            # The live view is drawn, so training is under way.
            while b"layer 2" not in os.read(ours, 9999):
                pass
            os.close(ours)
            assert process.wait(launch.LIMIT) == 0
        finally:
            process.kill()
    assert_trained(run)


def test_an_encoding_that_lacks_letters(tmp_path):
    # Without validation rows there is no error of theirs, but a dash.
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((90, 5)))
    data, run = tmp_path / "x.h5", tmp_path / "run"
    variables = {"PYTHONIOENCODING": "ascii"}
    launch.run("data", "prepare", tmp_path / "x.npy", "-o", data).ok()
    done = pretrain(data, run, variables=variables).ok()
    assert "Pre-training took" in done.stdout
    assert_trained(run)
    # Texts about options have signs that ASCII lacks.
    for words in (["config"], ["pretrain", "--help"], ["sparse", "--help"]):
        text = launch.run(*words, variables=variables).ok().stdout
        assert "momentum" in text or "sparsity" in text


def test_no_animation_in_logs(tiny, tmp_path):
    # Names are no markup.
    run, variables = tmp_path / "r[" / "b]x[bold]:smile:", {"FORCE_COLOR": "1"}
    done = pretrain(tiny, run, variables=variables).ok()
    assert "\x1b" not in done.stderr
    watched = launch.run("watch", run, variables=variables)
    assert "\x1b[1A" not in watched.ok().stdout
    assert f"Next: mpilayer finetune {run}" in done.stdout
    assert str(run) in watched.stdout.replace("\n", "")


# --- text files and names of files


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("ranks", [0, 2])
def test_names_that_are_not_utf_8(tiny, tmp_path, ranks):
    data, run = (tmp_path / os.fsdecode(name) for name in (b"d\xff.h5", b"r\xe9"))
    data.write_bytes(tiny.read_bytes())
    pretrain(data, run, ranks=ranks).ok()
    assert os.fsencode(f'path = "{data}"') in (run / "config.toml").read_bytes()
    launch.run("resume", run, ranks=ranks).ok()
    for variables in (ASCII, {}):
        launch.run("evaluate", run, variables=variables).ok()
    if ranks:
        return
    launch.run("finetune", run, "--epochs", 1).ok()
    launch.run("watch", run).ok()
    launch.run("report", run, "-o", tmp_path / "page.html").ok()
    launch.run("export", run, "-o", run / "model.safetensors").ok()


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_name_that_the_locale_lacks(tiny, tmp_path, ranks):
    data, run = tmp_path / "données.h5", tmp_path / "josé"
    data.write_bytes(tiny.read_bytes())
    pretrain(data, run, variables=ASCII, ranks=ranks).ok()
    assert f'path = "{data}"' in (run / "config.toml").read_text(encoding="utf-8")
    for variables in (ASCII, None):
        launch.run("evaluate", run, variables=variables).ok()
