"""Files that are whole or as they were, and damage that is noticed on reading."""

import errno
import json
import os
import tomllib
import warnings
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

from mpilayer import files
from mpilayer.config import to_toml
from mpilayer.errors import (
    CheckpointError,
    DamageWarning,
    FileError,
    FileWarning,
    file_errors,
)

CONTENT = {"rate": 0.125, "layers": [8, 5], "name": "é", "deep": {"none": None}}


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files.write(path, "é")
    assert path.read_bytes() == "é".encode()

    def refuse(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(FileError, match=r"a must be writable; no space .* Nothing was"):
        files.write(path, b"new")
    assert path.read_bytes() == "é".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_wrong_with_a_file_itself_leaves_the_old_one(tmp_path):
    path, mine = tmp_path / "a", tmp_path / "mine"
    path.write_text("old")
    mine.write_text("mine")
    # A link in the place of the unfinished file is not followed.
    (tmp_path / f".a.{os.getpid()}.tmp").symlink_to(mine)

    def settle(temporary):
        assert temporary.read_text() == "new"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.replacing(path, settle) as temporary:
        temporary.write_text("new")
    assert (path.read_text(), mine.read_text()) == ("old", "mine")
    assert sorted(tmp_path.iterdir()) == [path, mine]


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_a_seal_notices_a_changed_digit(tmp_path, kind):
    path = tmp_path / "a"
    content = {"section": {**CONTENT, "deep": "x"}}
    if kind == "json":
        files.write_json(path, content)
        read, parse = files.read_json, json.loads
    else:
        files.write(path, to_toml(files.sealed(content)))
        read, parse = partial(files.read_toml, strict=True), tomllib.loads
    assert read(path) == content
    text = path.read_text()
    path.write_text(text.replace("0.125", "0.126"))
    assert parse(path.read_text())["section"]["rate"] == 0.126
    with pytest.raises(CheckpointError, match="must be as it was written; its content"):
        read(path)
    if kind == "toml":
        with pytest.warns(DamageWarning, match="was changed: its content has another"):
            found = files.read_toml(path, strict=False)
        assert found["section"]["rate"] == 0.126
    # The same values, written otherwise, are the same; so is a file without a seal.
    path.write_text(text.replace("0.125", "1.25e-1"))
    assert read(path) == content


def test_settings_without_a_seal_are_not_used_without_a_word(tmp_path):
    path = tmp_path / "a"
    path.write_text(json.dumps(CONTENT))
    assert files.read_json(path) == CONTENT  # of an older version
    content = {"section": {"rate": 0.125}}
    path.write_text(to_toml(content))
    assert files.read_toml(path, strict=False) == content
    with pytest.warns(DamageWarning, match="has no seal: .* cut off, or"):
        assert files.read_toml(path, strict=True) == content


BAD = [
    b"",
    b"[1]",
    b'{"a": NaN}',
    b'{"a": -Infinity}',
    b'{"a": [1e999]}',
    b"{",
    b"\xff\xfe",
    b'{"a": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_what_is_no_object(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a must be as it was written"):
        files.read_json(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    toml = partial(files.read_toml, strict=False)
    for read in (files.read_text, toml, files.read_json, files.read_array):
        for name in ("pipe", "folder"):
            with pytest.raises(CheckpointError, match=f"{name} must be as it was"):
                read(tmp_path / name)


@pytest.mark.parametrize("where", range(0, 128, 7))
def test_an_array_with_a_damaged_header(tmp_path, where):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(12, dtype=np.float32))
    content = bytearray(path.read_bytes())
    for byte in (0, 0x27, 0xFF):
        content[where] = byte
        path.write_bytes(content)
        with suppress(CheckpointError):  # of any other error none gets out
            files.read_array(path)


def test_what_is_optional_is_said_once(tmp_path):
    def refuse():
        with files.optional(tmp_path / "a", "there is no picture"):
            raise OSError(errno.EIO, "")

    with pytest.warns(FileWarning, match=r"input/output error\): there is no picture"):
        refuse()
    with pytest.raises(ZeroDivisionError), files.optional(tmp_path, ""):
        raise ZeroDivisionError
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            refuse()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EIO, "x/y must be usable; input/output error. Mend its disk"),
        (errno.EMFILE, "x/y must be usable; too many open files. Allow more"),
        (errno.ENOSPC, "x/y must be writable; no space left on device. Make room"),
        (errno.EACCES, "x/y must be usable; permission denied. Mend its permissions"),
    ],
)
def test_what_the_operating_system_says_becomes_a_message(number, words):
    with pytest.raises(FileError) as caught, file_errors():
        raise OSError(number, os.strerror(number), "x/y")
    assert str(caught.value).startswith(words)
