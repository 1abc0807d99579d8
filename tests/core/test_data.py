"""Sources that hang, drip, never end, lie or die, on servers of this machine and with limits of some seconds.

What a limit spares must begin within it, also where the machine is busy: a process needs a while to start.
"""

import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smai_lib.core import sources
from smai_lib.core.sources import DataError

CONTENT = b"the data set"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Host(http.server.BaseHTTPRequestHandler):
    """Behaves as the path says."""

    def do_GET(self):
        what = self.path.strip("/").split("/")[0]
        try:
            if what == "hang":
                self.server.closing.wait()
            elif what == "babble":
                self.wfile.write(b"220 this is no web server\r\n\r\n")
            else:
                self.send_response(404 if what == "nothing" else 200)
                self.end_headers()
            while what in ("drip", "endless") and not self.server.closing.is_set():
                self.wfile.write(bytes(1 if what == "drip" else 1 << 20))
                self.server.closing.wait(0.02 if what == "drip" else 0)
            self.wfile.write({"right": CONTENT, "wrong": b"<html>log in"}.get(what, b""))
        except OSError:  # the client has had enough
            pass

    def log_message(self, *arguments):
        pass


@pytest.fixture
def host():
    """The address of a host of all bad habits."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.closing = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.closing.set()
    server.shutdown()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sources, "START_SECONDS", 0.8)


@pytest.mark.parametrize(
    "habit, reason",
    [
        ("hang", r"given up after \d s and 0 bytes"),
        ("drip", r"given up after \d s and \d+ bytes"),
        ("endless", r"given up after \d s and \d+,\d+,\d+ bytes"),
        ("babble", "http.client.BadStatusLine: 220 this is no web server"),
        ("nothing", "urllib.error.HTTPError: HTTP Error 404"),
        ("wrong", f"found the MD5 sum .*, expected {MD5}"),
    ],
)
def test_a_bad_host_is_given_up_within_seconds(habit, reason, host, tmp_path, request, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST", 3_000_000)
    if habit in ("hang", "drip"):
        request.getfixturevalue("impatient")
    started = time.monotonic()
    with pytest.raises(DataError, match=f"{host}/{habit}: {reason}"):
        sources.download([f"{host}/{habit}"], tmp_path / "file", MD5)
    assert time.monotonic() - started < 10


def test_all_mirrors_are_tried(host, tmp_path):
    file = tmp_path / "file"
    sources.download(
        [f"{host}/{habit}" for habit in ("wrong", "babble", "nothing", "right", "hang")], file, MD5
    )
    assert file.read_bytes() == CONTENT


def test_the_mirror_after_one_that_hangs_is_tried(host, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "START_SECONDS", 4)
    sources.download([f"{host}/hang", f"{host}/right"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_host_that_does_not_exist_is_one_reason(tmp_path):
    with pytest.raises(DataError, match="http://127.0.0.1:9/x: does not answer"):
        sources.download(["http://127.0.0.1:9/x"], tmp_path / "file", MD5)


def test_a_host_that_never_answers_is_given_up_within_seconds(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE_SECONDS", 0.3)
    with socket.socket() as silent:  # accepts nothing, and its backlog of one is taken
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        taken = [socket.socket() for _ in range(2)]
        for client in taken:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        assert not sources.reachable(f"http://127.0.0.1:{port}")
        assert time.monotonic() - started < 3
        for client in taken:
            client.close()


def test_what_a_command_started_is_killed_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "START_SECONDS", 2)
    with pytest.raises(DataError, match="given up after"):
        sources.run_in(tmp_path, "sh", "-c", "sleep 50 & echo $! > child; wait")
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    deadline = time.monotonic() + 20
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_why_a_command_failed_is_said(tmp_path):
    with pytest.raises(DataError, match="no such package"):
        sources.run_in(tmp_path, "sh", "-c", "echo no such package >&2; exit 3")
    with pytest.raises(DataError, match="nosuchprogram is not installed"):
        sources.run_in(tmp_path, "nosuchprogram")


def complete(folder):
    return (folder / "images").is_file()


def serve(scratch):
    (scratch / "images").write_bytes(CONTENT)
    return [scratch / "images"]


@pytest.mark.parametrize(
    "failure", [ValueError("line\nbreak"), StopIteration(), KeyError("x"), OSError(28, "disk full")]
)
def test_a_source_that_fails_oddly_is_one_line_and_the_next_serves(failure, tmp_path, capsys):
    def fail(scratch):
        (scratch / "half").write_bytes(bytes(1000))
        raise failure

    assert sources.find(tmp_path / "set", complete, {"odd": fail, "even": serve}) == (
        "even",
        tmp_path / "set",
    )
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and printed[0].startswith("odd: ")
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == ["SOURCE", "images"]


def test_where_nothing_can_be_written_nothing_is_fetched(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert sources.find(tmp_path / "file" / "set", complete, {"network": serve}) is None
    assert "cannot write" in capsys.readouterr().out


@pytest.mark.parametrize(
    "marker, name",
    [
        (b"network\n", "network"),
        (b"<script>alert(1)</script>", "data folder"),
        (b"$\\frac{$", "data folder"),
        (b"\xff\xfe\x00", "data folder"),
        (b"", "data folder"),
        (None, "data folder"),
    ],
)
def test_a_marker_is_believed_only_if_it_names_a_source(marker, name, tmp_path):
    (tmp_path / "images").write_bytes(CONTENT)
    if marker is not None:
        (tmp_path / "SOURCE").write_bytes(marker)
    assert sources.find(tmp_path, complete, {"network": serve}) == (name, tmp_path)


def test_two_fetches_at_once_fetch_once_and_name_the_same_source(tmp_path, monkeypatch):
    """The second looks when the first has put its images in place, and is about to tidy up."""
    cache, calls, found = tmp_path / "set", [], []
    placed, go_on = threading.Event(), threading.Event()
    replace = os.replace

    def slow(source, target):
        if Path(source).name == "SOURCE":
            replace(source, target)
            return
        replace(source, target)
        placed.set()
        go_on.wait(5)

    def fetch(scratch):
        calls.append(1)
        return serve(scratch)

    monkeypatch.setattr(os, "replace", slow)
    workers = [
        threading.Thread(
            target=lambda: found.append(sources.find(cache, complete, {"network": fetch}))
        )
        for _ in range(2)
    ]
    workers[0].start()
    assert placed.wait(60)
    workers[1].start()
    time.sleep(0.1)
    go_on.set()
    for worker in workers:
        worker.join()
    assert found == [("network", cache)] * 2 and len(calls) == 1


def test_what_a_killed_fetch_left_is_cleared_also_when_the_images_are_there(tmp_path):
    cache = tmp_path / "set"
    program = f"""
import time
from pathlib import Path
from smai_lib.core import sources
def fetch(scratch):
    (scratch / "half").write_bytes(bytes(1000))
    print("fetching", flush=True)
    time.sleep(60)
sources.find(Path({str(cache)!r}), lambda folder: False, {{"network": fetch}})
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as fetching:
        assert fetching.stdout.readline() == "fetching\n"
        fetching.send_signal(signal.SIGKILL)
    assert (cache / "part" / "half").exists()
    (cache / "images").write_bytes(CONTENT)
    assert sources.find(
        cache, complete, {"network": lambda scratch: pytest.fail("fetched again")}
    ) == ("data folder", cache)
    assert [file.name for file in cache.iterdir()] == ["images"]


def test_what_another_process_fetched_without_leaving_its_name_is_used(tmp_path):
    """Not there at the first look, there once the lock is had."""
    cache, looks = tmp_path / "data" / "set", iter([False, True])
    found = sources.find(
        cache, lambda folder: next(looks), {"network": lambda folder: pytest.fail("fetched again")}
    )
    assert found == ("data folder", cache)
