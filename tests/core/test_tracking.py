"""wandb has what the record has, offline unless asked, and its failures are one line."""

import functools
import http.server
import json
import sys
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
import wandb

from smai_lib import multitask
from smai_lib.core import runs, tracking
from smai_lib.core.runs import Run
from tests.conftest import output_of

DATA = SimpleNamespace(source="sample", fingerprint="f")


@pytest.fixture(scope="module")
def tracked(sample, tmp_path_factory):
    """A finished run."""
    root = tmp_path_factory.mktemp("tracked")
    data = sample.take(256, 50, 50)
    config = multitask.Config(base_filters=4, epochs=2)
    run = Run(config, 0, data.fingerprint, root, "4 filters", "study", "quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_PROJECT", "mine")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(root))
        runs.run_all([run], data, engine="serial")
    return run


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A run that is tracked in the test's folder without being trained."""
    wandb.teardown()  # it remembers keys and servers
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return Run(multitask.Config(), 0, "f", tmp_path, "toy", "study", "quick")


def folder_of(run):
    """Return the folder of the only wandb run in the folder of runs."""
    [folder] = (run.root / "wandb").glob("offline-run-*")
    return folder


@functools.cache
def read_log(folder):
    """Return the lines of an offline run's log, by wandb's own reader."""
    lines = output_of(sys.executable, "-m", "wandb", "leet", "inspect", "--json", folder)
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


def records(run, kind):
    """Return the records of one kind in the log of a run."""
    return [record[kind] for record in read_log(folder_of(run)) if record["type"] == kind]


def test_wandb_has_every_epoch_and_the_metrics_of_the_record_exactly(tracked):
    rows = pd.DataFrame(record["item"] for record in records(tracked, "history"))
    # wandb repeats the epoch in the row of the figures
    history = rows.drop_duplicates("epoch")[list(tracked.history.columns)].astype(float)
    pd.testing.assert_frame_equal(history, tracked.history.astype(float), check_exact=True)
    updates = [record["update"] for record in records(tracked, "summary")]
    assert any(update.items() >= tracked.metrics.items() for update in updates)


def test_wandb_says_what_was_run_and_where(tracked):
    [header] = records(tracked, "run")
    assert (header["project"], header["run_group"]) == ("mine", "study")
    assert set(header["tags"]) == {"sample", "seed 0", "quick", "study"}
    result = tracked.result()
    facts = ("seed", "run_id", "data_fingerprint", "device", "precision", "parameters")
    expected = result["config"] | {key: result[key] for key in facts}
    assert header["config"]["update"].items() >= expected.items()


def test_wandb_has_the_figures_and_refers_to_the_tested_weights(tracked):
    pictures = folder_of(tracked).glob("files/media/images/*.png")
    assert {file.name.split("_")[0] for file in pictures} == {"confusion", "feature"}
    [artifact] = records(tracked, "artifact")
    assert artifact["type"] == "model" and tracked.run_id in artifact["name"]
    assert artifact["manifest"]["contents"][0]["local_path"] == str(tracked.weights_file)


def test_an_error_marks_the_wandb_run_as_failed(toy):
    with pytest.raises(ZeroDivisionError), tracking.start(toy, DATA, {}):
        raise ZeroDivisionError
    assert records(toy, "exit")[0]["exit_code"] == 1


@pytest.mark.parametrize(
    "variables, mode",
    [
        ({}, "offline"),
        ({"WANDB_MODE": ""}, "offline"),
        ({"WANDB_MODE": "run"}, "run"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, "disabled"),
    ],
)
def test_tracking_is_offline_unless_asked(monkeypatch, variables, mode):
    monkeypatch.delenv("WANDB_MODE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracking.requested_mode() == mode


class Silent(http.server.BaseHTTPRequestHandler):
    """A server that never answers."""

    def do_POST(self):
        threading.Event().wait()


class Refusing(http.server.BaseHTTPRequestHandler):
    """A wandb server that accepts no key."""

    def do_POST(self):
        content = b'{"errors": [{"message": "invalid API key"}]}'
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.mark.parametrize(
    "server, key, problem",
    [
        (Silent, "0" * 40, "cannot be used (AuthenticationError: "),
        (Silent, "", "there is no key for"),
        (Refusing, "0" * 40, "invalid API key"),
    ],
)
def test_an_unusable_server_or_key_is_one_line_and_tracking_goes_on_offline(
    toy, serve, tmp_path, monkeypatch, capfd, server, key, problem
):
    url = serve(server)
    variables = {"MODE": "online", "HTTP_TIMEOUT": "2", "API_KEY": key, "BASE_URL": url}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of the user's
    with tracking.start(toy, DATA, {}) as track:
        track(lambda wandb_run: wandb_run.log({"epoch": 1}))
    warning = capfd.readouterr().err
    assert warning.startswith("wandb: ") and url in warning and problem in warning
    assert warning.endswith("; tracking offline, `wandb sync` uploads later\n")
    assert warning.count("\n") == 1
    assert folder_of(toy)


def test_a_folder_that_wandb_cannot_write_is_one_line_of_warning(
    toy, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    with tracking.start(toy, DATA, {}):
        pass
    warning = capsys.readouterr().err
    assert warning.startswith("wandb: toy is not fully tracked, its folder is: FileExistsError")
    assert warning.count("\n") == 1
