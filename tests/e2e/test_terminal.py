"""Whoever reads the output, or nobody, or in ASCII: training goes on to its end."""

import os
import signal

import numpy as np
import pytest

from tests.support import launch
from tests.support.command import call, said
from tests.support.terminal import Terminal

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


def become(change, *numbers):
    """Return a program for ``launch.run``, some of whose streams are changed."""
    return ("-c", BECOME.format(change=change.format(numbers)))


def pretrain(data, run, **options):
    """Pre-train a small stack to its end; return what was written."""
    done = launch.run("pretrain", data, "--run", run, *OPTIONS, **options).ok()
    assert (run / "complete").read_text().split() == ["pretrain"]
    return done


@pytest.mark.parametrize(
    ("change", "numbers", "ranks"),
    [
        (CLOSED, (1,), 0),
        (CLOSED, (2,), 2),
        (CLOSED, (0, 1, 2), 2),
        (NO_READER, (1, 2), 0),
        (NO_READER, (1, 2), 2),
        (NO_TERMINAL, (0, 1, 2), 2),
        (FULL, (2,), 0),
    ],
)
def test_nobody_listens(tiny, tmp_path, change, numbers, ranks):
    program = become(change, *numbers)
    done = pretrain(tiny, tmp_path / "run", program=program, ranks=ranks)
    assert "Traceback" not in done.stderr, done
    assert ("Pre-training took" in done.stdout) == (1 not in numbers), done
    assert ("layer 2: 3/3" in done.stderr) == (2 not in numbers), done


def test_a_full_disk_for_the_results(tiny, tmp_path):
    """Training has others, an evaluation has none."""
    words = "standard output must take all results; no space"
    done = pretrain(tiny, tmp_path / "run", program=become(FULL, 1))
    assert f"warning: {words}" in done.stderr
    done = call(tmp_path, "evaluate run --json", program=become(FULL, 1))
    launch.assert_user_error(done, words)


def test_an_error_that_nobody_reads(tmp_path):
    assert call(tmp_path, "data info x.h5", program=become(CLOSED, 2)).code == 2


def test_the_terminal_is_closed_on_the_way(tiny, tmp_path):
    # Without mpiexec: MPICH's ends its ranks when it cannot write.
    run, more = tmp_path / "run", ("--epochs", 1000)
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    words = ("pretrain", tiny, "--run", run, *OPTIONS, *more)
    with Terminal(*words, **ignore) as screen:
        # The live view is drawn, so training is under way.
        screen.wait_for("layer 2")
        screen.close()
        assert screen.process.wait(launch.LIMIT) == 0
    assert (run / "complete").read_text().split() == ["pretrain"]


def test_an_encoding_that_lacks_letters(tmp_path):
    # Without validation rows there is no error of theirs, but a dash.
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((90, 5)))
    variables = {"PYTHONIOENCODING": "ascii"}
    said(tmp_path, "data prepare x.npy -o x.h5")
    done = pretrain(tmp_path / "x.h5", tmp_path / "run", variables=variables)
    assert "Pre-training took" in done.stdout
    # Texts about options have signs that ASCII lacks.
    for line in ("config", "pretrain --help", "sparse --help"):
        text = said(tmp_path, line, variables=variables)
        assert "momentum" in text or "sparsity" in text


def test_no_animation_in_logs(tiny, tmp_path):
    # Names are no markup.
    run, variables = tmp_path / "r[" / "b]x[bold]:smile:", {"FORCE_COLOR": "1"}
    done = pretrain(tiny, run, variables=variables)
    assert "\x1b" not in done.stderr
    watched = said(tmp_path, f"watch {run}", variables=variables)
    assert "\x1b[1A" not in watched
    assert f"Next: mpilayer finetune {run}" in done.stdout
    assert str(run) in watched.replace("\n", "")


# --- text files and names of files


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize(
    ("names", "variables"),
    [((b"d\xff.h5", b"r\xe9"), {}), (("données.h5", "josé"), ASCII)],
    ids=["not UTF-8", "not in the locale"],
)
def test_names_that_few_can_read(tiny, tmp_path, names, variables, ranks):
    data, run = (tmp_path / os.fsdecode(name) for name in names)
    data.write_bytes(tiny.read_bytes())
    pretrain(data, run, ranks=ranks, variables=variables)
    assert os.fsencode(f'path = "{data}"') in (run / "config.toml").read_bytes()
    call(tmp_path, f"resume {run}", ranks=ranks, variables=variables).ok()
    for locale in (ASCII, {}):
        said(tmp_path, f"evaluate {run}", variables=locale)
    uses = (f"finetune {run} --epochs 1", f"watch {run}", f"report {run} -o page.html")
    if not ranks and not variables:
        for line in (*uses, f"export {run} -o {run}.safetensors"):
            said(tmp_path, line)
