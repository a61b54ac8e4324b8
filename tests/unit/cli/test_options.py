"""When a run saves and gives way, as the command line says it."""

import argparse
import math
import time
from dataclasses import replace

import pytest

from mpilayer import interrupt
from mpilayer.cli.options import add_config, add_safety, config_from, safety_from
from mpilayer.config import SparseConfig
from mpilayer.errors import ConfigError
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.parallel.start import place
from mpilayer.runs.session import Safety, Session


def parsed(*arguments, starts=True):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--replace", action="store_true")
    add_safety(parser, starts)
    return safety_from(parser.parse_args([str(a) for a in arguments]))


def test_defaults():
    assert parsed() == parsed(starts=False) == Safety()


def test_times():
    times = {"90": 90, "0": 0, "0.5": 0.5, "1:30": 90, "90:00": 5400}
    times |= {"2:00:00": 7200, "23:59:59": 86399, "00:00:01": 1}
    for text, seconds in times.items():
        assert parsed("--max-time", text).max_time == seconds
        assert parsed("--checkpoint-seconds", text).checkpoint_seconds == seconds


BAD_TIMES = ("", "soon", "-1", "1:-1", "1:2:3:4", ":", "1:", "inf", "nan", "1h", "1:x")


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        *(("max-time", text, "MM:SS") for text in BAD_TIMES),
        *(("checkpoint-every", text, "0 or more") for text in ("-1", "1.5", "many")),
    ],
)
def test_bad_times_and_intervals(option, text, words):
    with pytest.raises(argparse.ArgumentError, match=words):
        parsed(f"--{option}={text}")


def compared(tmp_path, text, *arguments):
    """Return what 'compare' reads from a file and the command line."""
    (tmp_path / "a.toml").write_text(text)
    parser = argparse.ArgumentParser()
    add_config(parser, SparseConfig)
    given = parser.parse_args(["--config", str(tmp_path / "a.toml"), *arguments])
    return config_from(given, SparseConfig, "compare")


def test_compare_reads_its_own_section_over_that_of_sparse(tmp_path):
    text = "[sparse]\nhidden = 7\ncorrections = 10\n"
    own = text + "[compare]\ncorrections = 3\nkl = 'exact-fused'\n"
    found = compared(tmp_path, own, "--seed", "4")
    assert (found.hidden, found.corrections, found.kl) == (7, 3, "exact-fused")
    assert found.seed == 4
    # A comparison's run lists its two runs there.
    of_run = text + "[compare]\nruns = ['average', 'exact']\n"
    assert compared(tmp_path, of_run) == compared(tmp_path, text)
    for section in ("sparse", "compare"):
        with pytest.raises(ConfigError, match=rf"\[{section}\]: hidden must be at"):
            compared(tmp_path, f"[{section}]\nhidden = 0\n")


def test_a_run_goes_on_or_begins_anew():
    assert parsed("--resume", "auto").resume
    with pytest.raises(ConfigError, match="--resume and --replace"):
        parsed("--resume", "auto", "--replace")
    with pytest.raises(argparse.ArgumentError, match="auto"):
        parsed("--resume", "always")


# --- what a session makes of it


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(interrupt, "_requested", "")
    comm = SerialCommunicator()
    return Session(comm, place(comm, 1))


@pytest.mark.parametrize(
    ("every", "seconds", "asked", "due"),
    [
        (0, 60, (5, 59), False),
        (0, 60, (5, 60), True),
        (3, 60, (2, 0), False),
        (3, 60, (3, 0), True),
        (3, 60, (1, 61), True),
        (1, 0, (0, 10**6), False),
        (0, 0, (1, 0), True),
    ],
)
def test_a_save_is_due(session, every, seconds, asked, due):
    assert replace(session, safety=Safety(every, seconds)).is_due(*asked) == due


def test_a_run_ends_before_its_time_is_over(session):
    assert not session.must_stop(10**6)
    soon = replace(session, deadline=time.time() + 60)
    assert not soon.must_stop(1)
    assert soon.must_stop(60)
    assert replace(session, deadline=time.time() - 1).must_stop(0)


def test_a_run_ends_when_it_was_asked_to(session, monkeypatch):
    monkeypatch.setattr(interrupt, "_requested", "SIGTERM")
    assert session.must_stop(0)


@pytest.mark.parametrize("max_time", [0, 50, 5000])
@pytest.mark.parametrize("job_ends_in", [None, 100, 1000])
def test_the_job_s_end_and_the_user_s_both_count(monkeypatch, max_time, job_ends_in):
    end = job_ends_in and time.time() + job_ends_in
    monkeypatch.setattr("mpilayer.environment.job_end", lambda: end)
    session = Session.begin(1, safety=Safety(max_time=max_time))
    # Half a minute is left for what follows the last checkpoint.
    limits = [max_time or math.inf, job_ends_in - 30 if job_ends_in else math.inf]
    left = session.deadline - time.time()
    assert left == pytest.approx(min(limits), abs=5)
