"""Fetching known data sets from a web server of our own."""

import argparse
import contextlib
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mpilayer.cli import data as command
from mpilayer.data import catalog
from mpilayer.data.catalog import KnownDataset, fetch
from mpilayer.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 1000
PACKED = gzip.compress(CONTENT, 9)
REPACKED = gzip.compress(CONTENT, 1)
OTHER = gzip.compress(b"other")
BOMB = gzip.compress(bytes(10**8), 1)
NAME = "images.gz"


def send_for_ever(handler):
    """Send bytes for as long as somebody listens."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(bytes(100_000))


def drip(handler, *parts):
    """Send a byte now and then."""
    with contextlib.suppress(OSError):
        for part in parts:
            handler.wfile.write(part)
        while not handler.server.closing.wait(0.05):
            handler.wfile.write(b"x")


ENDLESS = {
    "endless": send_for_ever,
    "drips": lambda handler: drip(handler, b"HTTP/1.0 200 OK\r\n\r\n"),
    "drips-head": lambda handler: drip(handler, b"HTTP/1.0 200 OK\r\nX-"),
    "silent": lambda handler: handler.server.closing.wait(20),
    "claims": lambda handler: drip(
        handler, b"HTTP/1.0 200 OK\r\nContent-Length: 1" + b"0" * 400 + b"\r\n\r\n"
    ),
}


class Handler(BaseHTTPRequestHandler):
    """Gives each of the server's folders another behaviour."""

    def do_GET(self):
        self.server.asked.append(self.path)
        folder, _, name = self.path[1:].partition("/")
        others = {"repacked": REPACKED, "other": OTHER, "plain": CONTENT, "bomb": BOMB}
        if folder in ENDLESS:
            ENDLESS[folder](self)
        elif folder in ("missing", "busy") or name != NAME:
            self.send_error(503 if folder == "busy" else 404)
        else:
            answer = others.get(folder, PACKED)
            length = str(len(answer) + 10 * (folder == "short"))
            self.send_response(200)
            if folder != "unsized":
                self.send_header("Content-Length", "²" if folder == "odd" else length)
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.closing = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def fetch_from(server, tmp_path, monkeypatch):
    """Give a function that fetches from some of the server's folders."""
    checksums = {
        True: "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
        False: "md5:" + hashlib.md5(PACKED).hexdigest(),
    }

    def run(*folders, of_content=True, mirrors=(), progress=lambda *_: None):
        server.asked.clear()
        base = f"http://127.0.0.1:{server.server_port}/"
        own = tuple(base + folder for folder in folders)
        known = KnownDataset({NAME: checksums[of_content]}, own, of_content)
        monkeypatch.setitem(catalog.CATALOG, "tiny", known)
        mirrors = [base + mirror for mirror in mirrors]
        return fetch("tiny", tmp_path / "out", mirrors, progress)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("of_content", [True, False])
@pytest.mark.parametrize("folder", ["good", "unsized", "odd", "repacked"])
def test_good_mirror(fetch_from, tmp_path, folder, of_content):
    seen, content = [], REPACKED if folder == "repacked" else PACKED
    options = {"of_content": of_content, "progress": lambda *step: seen.append(step)}
    if folder == "repacked" and not of_content:
        with pytest.raises(DataError, match=r"md5 is \w{12} instead of \w{12}"):
            fetch_from(folder, **options)
        return
    assert fetch_from(folder, **options)[NAME].endswith(f"/{folder}/{NAME}")
    assert (tmp_path / "out" / NAME).read_bytes() == content
    assert names(tmp_path / "out") == [NAME]
    size = None if folder in ("unsized", "odd") else len(content)
    assert seen[0] == (NAME, 0, size)
    assert seen[-1] == (NAME, len(content), size)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("endless", "more than 1 MB"),
        ("bomb", "more than 1 MB"),
        ("claims", "more than 1 MB"),
        ("drips", r"too slow: \d+ bytes in \d+ s"),
        ("drips-head", "timed out"),
        ("silent", "timed out"),
    ],
)
def test_a_server_that_goes_on_for_ever(fetch_from, tmp_path, monkeypatch, bad, reason):
    monkeypatch.setattr(catalog, "LARGEST", 10**6)
    monkeypatch.setattr(catalog, "_TIMEOUT", 0.5)
    with pytest.raises(DataError, match=rf"{bad}/{NAME}: {reason}"):
        fetch_from(bad)
    assert names(tmp_path / "out") == []


def test_a_bad_mirror_is_followed_by_the_next(fetch_from, server, tmp_path):
    found = fetch_from("missing", mirrors=["short", "good/"])
    assert found[NAME].endswith(f"/good/{NAME}")
    assert server.asked == [f"/short/{NAME}", f"/good/{NAME}"]
    assert names(tmp_path / "out") == [NAME]


def test_all_mirrors_fail_and_nothing_is_left(fetch_from, tmp_path):
    with pytest.raises(DataError) as caught:
        fetch_from("missing", "busy", "other", "plain", "short")
    parts = [
        f"{NAME} must come from one of its mirrors; all failed:",
        "missing/images.gz: HTTP 404 Not Found",
        "busy/images.gz: HTTP 503 Service Unavailable",
        "other/images.gz: sha256 is",
        "plain/images.gz: not a whole gzip file",
        f"short/images.gz: ended after {len(PACKED)} of {len(PACKED) + 10} bytes",
        "--mirror",
    ]
    lines = str(caught.value).splitlines()
    assert all(text in line for text, line in zip(parts, lines, strict=True))
    assert names(tmp_path / "out") == []


def test_only_a_good_file_replaces_a_damaged_one(fetch_from, server, tmp_path):
    path = tmp_path / "out" / NAME
    path.parent.mkdir()
    path.write_bytes(b"half")
    with pytest.raises(DataError):
        fetch_from("other")
    assert path.read_bytes() == b"half"
    fetch_from("good")
    assert path.read_bytes() == PACKED
    assert (fetch_from("missing"), server.asked) == ({NAME: ""}, [])


@pytest.mark.parametrize(
    ("name", "urls", "message"),
    [
        *(
            ("mnist", [url], "begins with http:// or https://; found")
            for url in ("file:///etc/", "ftp://a/", "data", "http://", "http://[")
        ),
        ("mnits", [], r"choose from mnist, fashion-mnist.*'mnist'"),
    ],
)
def test_other_urls_and_names(tmp_path, name, urls, message):
    with pytest.raises(ConfigError, match=message):
        fetch(name, tmp_path / "out", urls)
    assert names(tmp_path) == []
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="must be a folder that can be written"):
        fetch("mnist", tmp_path / "out")


def test_command_without_a_terminal(fetch_from, tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    command.configure(parser)
    arguments = parser.parse_args(["fetch", "tiny", "-o", "out"])
    fetch_from("good")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / NAME).unlink()
    for _ in range(2):
        command.run(arguments)
    captured = capsys.readouterr()
    assert captured.err == f"{NAME}: downloading (0.0 MB)\n"
    first, *_, kept, following = captured.out.splitlines()
    assert first.endswith(f"/good/{NAME}")
    assert kept == f"{NAME}: was there already"
    assert following == "Next: mpilayer data prepare out -o tiny.h5"
