"""Downloads from hosts of this machine that stall, lie or never end, and the choice of a source."""

import hashlib
import http.server
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from smai_lib.core import data
from smai_lib.core.errors import ConfigError, DataError
from smai_lib.core.paths import data_dir, runs_dir

CONTENT = b"the data set"
MD5 = hashlib.md5(CONTENT).hexdigest()


class Host(http.server.BaseHTTPRequestHandler):
    """A host that behaves as the last part of the path says; as a proxy, it serves any host."""

    def do_GET(self):
        habit = self.path.split("/")[-1]
        try:
            if habit == "silent":
                threading.Event().wait()
            self.send_response(200)
            self.end_headers()
            while habit in ("dripping", "endless"):
                self.wfile.write(bytes(1 << 12))
                time.sleep(0.1 if habit == "dripping" else 0)
            self.wfile.write(CONTENT if habit == "right" else b"<html>log in")
        except OSError:  # the client gave up
            pass


@pytest.fixture
def host(monkeypatch, serve):
    """The address of a `Host`, with limits of few seconds and bytes, and no proxy."""
    limits = {"CONNECT_SECONDS": 1, "SLOW_SECONDS": 1, "MOST_BYTES": 3_000_000}
    for limit, value in limits.items():
        monkeypatch.setattr(data, limit, value)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return serve(Host)


@pytest.mark.parametrize("variable, folder", [("SMAI_DATA", data_dir), ("SMAI_RUNS", runs_dir)])
@pytest.mark.parametrize("named, reason", [("~nobody_of_that_name/x", "home"), ("loop", "loop")])
def test_a_folder_that_cannot_be_found_is_refused_by_its_variable(
    variable, folder, named, reason, tmp_path, monkeypatch
):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, named)
    with pytest.raises(ConfigError, match=f"{variable}: found '{named}', expected a .*{reason}"):
        folder()


@pytest.mark.parametrize("habit", ["silent", "dripping", "endless"])
def test_a_bad_host_is_given_up_within_seconds(habit, host, tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match=f"{host}/{habit}: "):
        data.download([f"{host}/{habit}"], tmp_path / "file", MD5)
    assert time.monotonic() - start < 5
    assert not (tmp_path / "file").exists()


def test_the_first_mirror_with_the_right_content_serves(host, tmp_path):
    mirrors = ["http://127.0.0.1:9", f"{host}/wrong", f"{host}/right"]
    data.download(mirrors, tmp_path / "file", hashlib.sha256(CONTENT).hexdigest())
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_downloads_go_through_the_proxy(host, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", host)
    data.download(["http://far.invalid/right"], tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "command, reason",
    [
        (["sh", "-c", "echo no such package >&2; exit 3"], "no such package"),
        (["sh", "-c", "sleep 50 & wait"], "sh took longer than 1 s"),
        (["nosuchprogram"], "nosuchprogram is not installed"),
    ],
)
def test_the_reason_of_a_failed_command_is_named(command, reason):
    with pytest.raises(DataError, match=reason):
        data.run_command(*command, deadline=1)


def missing(folder):
    return "" if (folder / "images").is_file() else f"{folder} has no images"


def serve_images(scratch):
    (scratch / "images").write_bytes(CONTENT)
    return [scratch / "images"]


def find(cache, **fetchers):
    return data.find_source(cache, missing, fetchers, local={})


@pytest.mark.parametrize(
    "failure", [ValueError("line\nbreak"), StopIteration(), OSError(28, "disk full \udcff")]
)
def test_after_a_source_that_fails_the_next_serves(failure, tmp_path, capfd):
    def fail(scratch):
        (scratch / "half").write_bytes(bytes(1000))
        raise failure

    cache = tmp_path / "set"
    assert find(cache, odd=fail, even=serve_images) == ("even", cache)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("odd: ")
    assert sorted(file.name for file in cache.iterdir()) == ["SOURCE", "images"]


def test_in_a_folder_that_cannot_be_written_nothing_is_fetched(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert find(tmp_path / "file" / "set", network=serve_images) is None
    assert "cannot write" in capsys.readouterr().out


def test_an_unknown_source_is_called_the_data_folder(tmp_path):
    serve_images(tmp_path)
    assert find(tmp_path, network=serve_images) == ("data folder", tmp_path)
    (tmp_path / "SOURCE").write_bytes(b"\xff\xfe\x00")
    assert find(tmp_path, network=serve_images) == ("data folder", tmp_path)


def test_an_explicit_folder_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    find_at_home = partial(data.find_source, tmp_path / "set", missing, {}, explicit="~", local={})
    with pytest.raises(DataError, match=f"{tmp_path} has no images"):
        find_at_home()
    serve_images(tmp_path)
    assert find_at_home() == ("explicit directory", tmp_path)


def test_two_notebooks_that_start_at_once_download_once(tmp_path):
    cache, calls = tmp_path / "set", []

    def fetch(scratch):
        calls.append(scratch)
        time.sleep(0.3)
        return serve_images(scratch)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: find(cache, network=fetch), range(2)))
    assert found == [("network", cache)] * 2 and len(calls) == 1


def test_what_a_killed_download_left_is_removed(tmp_path):
    cache = tmp_path / "set"
    (cache / data.UNVERIFIED).mkdir(parents=True)
    (cache / data.UNVERIFIED / "half").write_bytes(bytes(1000))
    assert find(cache, network=serve_images) == ("network", cache)
    assert sorted(file.name for file in cache.iterdir()) == ["SOURCE", "images"]


def test_take_keeps_the_first_images_and_marks_the_fingerprint(sample):
    few = sample.take(60)
    assert [len(split.ink) for split in (few.train, few.validation, few.test)] == [60, 10, 10]
    assert few.train.images.equal(sample.train.images[:60])
    assert few.fingerprint == f"{sample.fingerprint}:60:10:10"
    part = sample.take(2, test=0)
    assert [len(split.ink) for split in (part.train, part.validation, part.test)] == [2, 1, 1000]
    assert sample.take(0).fingerprint == sample.fingerprint


@pytest.mark.parametrize("images", [-1, "60", 6.0, None])
def test_take_refuses_what_is_no_number_of_images(images, sample):
    with pytest.raises(ConfigError, match=f"train: found {images!r}"):
        sample.take(images)
