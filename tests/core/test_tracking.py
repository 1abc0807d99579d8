import http.server
import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest
import wandb

from smai_lib import multitask
from smai_lib.core import runs, tracking
from smai_lib.core.errors import ConfigError
from smai_lib.core.runs import Run

DATA = SimpleNamespace(source="sample", fingerprint="f")


@pytest.fixture(scope="module")
def tracked(sample, tmp_path_factory):
    """Two finished runs, and the folders of their wandb runs."""
    root = tmp_path_factory.mktemp("tracked")
    data = sample.take(256, 50, 50)
    configs = [multitask.Config(base_filters=filters, epochs=2) for filters in (2, 4)]
    pair = [
        Run(config, 0, data.fingerprint, root, f"{config.base_filters} filters", "study", "quick")
        for config in configs
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_PROJECT", "mine")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(root))
        runs.run_all(pair, data, engine="serial")
    folders = {header(folder)["display_name"]: folder for folder in folders_in(root)}
    return {run.name: (run, folders[run.name]) for run in pair}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A run that is tracked without being trained."""
    wandb.teardown()  # it remembers keys and servers
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return Run(multitask.Config(), 0, "f", tmp_path, "toy", "study", "quick")


def folders_in(root):
    return sorted((root / "wandb").glob("offline-run-*"))


def records(folder, kind):
    """Return the records of a kind in an offline run's folder, through wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    return [record[kind] for record in lines if record["type"] == kind]


def header(folder):
    return records(folder, "run")[0]


def test_wandb_has_every_epoch_of_the_record_exactly(tracked):
    for run, folder in tracked.values():
        rows = pd.DataFrame(record["item"] for record in records(folder, "history"))
        # wandb repeats the epoch in the row of the figures
        history = rows.drop_duplicates("epoch")[list(run.history.columns)].astype(float)
        pd.testing.assert_frame_equal(history, run.history.astype(float), check_exact=True)


def test_wandb_says_what_was_run_and_where(tracked):
    run, folder = tracked["4 filters"]
    found = header(folder)
    assert (found["project"], found["run_group"], found["job_type"]) == ("mine", "study", "train")
    assert set(found["tags"]) == {"sample", "seed 0", "quick", "study"}
    config = found["config"]["update"]
    result = run.result()
    assert {key: config[key] for key in result["config"]} == result["config"]
    for key in ("seed", "run_id", "data_fingerprint", "device", "precision", "parameters"):
        assert config[key] == result[key], key


def test_wandb_has_the_figures_and_refers_to_the_tested_weights(tracked):
    run, folder = tracked["4 filters"]
    figures = {file.name.split("_")[0] for file in folder.glob("files/media/images/*.png")}
    assert figures == {"confusion", "feature"}
    artifact = records(folder, "artifact")[0]
    assert artifact["type"] == "model" and run.run_id in artifact["name"]
    assert artifact["manifest"]["contents"][0]["local_path"] == str(run.weights_file)


def test_an_error_marks_the_wandb_run_as_failed(toy, tmp_path):
    with pytest.raises(ZeroDivisionError), tracking.start(toy, DATA, {}):
        raise ZeroDivisionError
    assert records(folders_in(tmp_path)[0], "exit")[0]["exit_code"] == 1


def test_the_lowest_nll_is_in_the_summary(toy, tmp_path):
    metrics = {"val_nll": 2.0, "best_val_loss": 1.5}
    weights = tmp_path / "weights"
    weights.touch()
    with tracking.start(toy, DATA, {}) as track:
        track(lambda wandb_run: tracking.finish(wandb_run, metrics, {}, weights))
    updates = [record["update"] for record in records(folders_in(tmp_path)[0], "summary")]
    assert [update["best_val_nll"] for update in updates if "best_val_nll" in update] == [1.5]


@pytest.mark.parametrize(
    "variables, mode",
    [
        ({}, "offline"),
        ({"WANDB_MODE": ""}, "offline"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, "disabled"),
    ],
)
def test_tracking_is_offline_unless_asked(monkeypatch, variables, mode):
    monkeypatch.delenv("WANDB_MODE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracking.requested_mode() == mode


def test_a_wrong_mode_is_refused_before_training(toy, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with (
        pytest.raises(ConfigError, match="WANDB_MODE: found 'onlin', expected one of offline"),
        tracking.start(toy, DATA, {}),
    ):
        pytest.fail("began")


class Refusal(http.server.BaseHTTPRequestHandler):
    """Answers every request as a wandb server that does not accept the key."""

    def do_POST(self):
        content = b'{"errors": [{"message": "invalid API key"}]}'
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Print nothing."""


@contextmanager
def server(kind):
    """Serve on a free port: "none" nobody, "silent" without an answer, "refusing" any key."""
    if kind == "refusing":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as refusing:
            threading.Thread(target=refusing.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{refusing.server_port}"
            refusing.shutdown()
        return
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "none":
            silent.close()
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "kind, key, problem",
    [
        ("none", "0" * 40, "does not answer"),
        ("silent", "0" * 40, "cannot be used"),
        ("silent", "", "there is no key for"),
        ("refusing", "0" * 40, "cannot be used (AuthenticationError: "),
        ("refusing", "short", "API key must have 40+ characters"),
    ],
)
def test_an_unusable_server_or_key_is_one_line_and_tracking_goes_on_offline(
    toy, tmp_path, monkeypatch, capsys, kind, key, problem
):
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of the user's
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_API_KEY", key)
    with server(kind) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        with tracking.start(toy, DATA, {}) as track:
            track(lambda wandb_run: wandb_run.log({"epoch": 1}))
    warning = capsys.readouterr().err
    assert warning.startswith("wandb: ") and url in warning and problem in warning
    assert warning.endswith("; tracking offline, `wandb sync` uploads later\n")
    assert warning.count("\n") == 1
    assert len(records(folders_in(tmp_path)[0], "history")) == 1


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
