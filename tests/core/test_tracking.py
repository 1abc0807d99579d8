import json
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import wandb

from smai_lib import studies
from smai_lib.core import tracking
from smai_lib.core.runs import execute
from smai_lib.core.study import Study


@pytest.fixture(scope="module")
def offline_study(sample, tmp_path_factory):
    """The ten configurations, two short epochs each, with real offline wandb files."""
    from smai_lib.core.runs import RunSpec
    from smai_lib.multitask.config import MultiTaskConfig

    data, root = sample.subset(256, 50, 50), tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_PROJECT", "mine")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(root))
        specs = [
            RunSpec(
                name,
                "q1_configs",
                MultiTaskConfig.from_dict(config.to_dict() | {"epochs": 2}),
                0,
                data.fingerprint,
                root / "runs",
                "quick",
            )
            for name, config in studies.TEN_CONFIGS.items()
        ]
        study = Study("q1_configs", "quick", specs, lambda: data)
        study.run()
    return study, sorted((root / "wandb").glob("offline-run-*"))


def records(folder):
    """Every record of an offline run's folder, through wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def record_of(folder, kind):
    return next(record for record in records(folder) if record["type"] == kind)


def history_of(folder):
    """The epochs that an offline run's folder holds, one row each."""
    rows = pd.DataFrame(
        record["history"]["item"] for record in records(folder) if record["type"] == "history"
    )
    # wandb adds the epoch to the record that holds the pictures only
    return rows.drop_duplicates("epoch").dropna(axis="columns", how="all")


def test_ten_mirrors_equal_the_records(offline_study):
    study, folders = offline_study
    assert len(folders) == 10
    mirrored = {}
    for folder in folders:
        header = json.dumps(record_of(folder, "run"))
        name = next(spec.name for spec in study.specs if f'"{spec.name}"' in header)
        mirrored[name] = history_of(folder)
    assert set(mirrored) == set(studies.TEN_CONFIGS)
    for spec in study.specs:
        history = spec.folder.history()
        pd.testing.assert_frame_equal(
            mirrored[spec.name][list(history.columns)].astype(float),
            history.astype(float),
            check_exact=True,
        )


def test_a_mirror_names_group_job_and_config(offline_study):
    header = json.dumps(record_of(offline_study[1][0], "run"))
    for expected in (
        "q1_configs",
        "train",
        "lambda1",
        "base_filters",
        "data_fingerprint",
        "seed 0",
    ):
        assert expected in header, expected


def test_a_mirror_says_what_was_run_and_where(offline_study):
    study, folders = offline_study
    header = record_of(folders[0], "run")["run"]
    assert header["project"] == "mine" and {"quick", "q1_configs", "sample", "seed 0"} <= set(
        header["tags"]
    )
    names = {"profile", "device", "precision", "parameters", "run_id"}
    config = {name: value for name, value in header["config"]["update"].items() if name in names}
    result = next(spec.folder.result() for spec in study.specs if spec.run_id == config["run_id"])
    assert config == {"profile": "quick"} | {name: result[name] for name in names - {"profile"}}


def test_the_tested_weights_are_an_artifact(offline_study):
    study, folders = offline_study
    header, artifact = (
        record_of(folders[0], "run")["run"],
        record_of(folders[0], "artifact")["artifact"],
    )
    spec = next(spec for spec in study.specs if spec.run_id == header["config"]["update"]["run_id"])
    assert artifact["type"] == "model" and spec.run_id in artifact["name"]
    assert [file["local_path"] for file in artifact["manifest"]["contents"]] == [
        str(spec.weights_file)
    ]


def test_the_summary_of_a_colour_run_has_its_lowest_nll(made_up_colors, tmp_path, monkeypatch):
    from smai_lib.colorization.config import ColorizationConfig
    from smai_lib.core.runs import RunSpec, execute

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    data = made_up_colors((40, 20, 20), 4)
    spec = RunSpec(
        "run",
        "test",
        ColorizationConfig(num_colors=4, num_filters=2, kernel_size=3, epochs=1),
        0,
        data.fingerprint,
        tmp_path / "runs",
    )
    best = execute(spec, data)["metrics"]["best_val_loss"]
    summaries = [
        record["summary"]["update"]
        for record in records(next((tmp_path / "wandb").glob("offline-run-*")))
        if record["type"] == "summary"
    ]
    assert [summary["best_val_nll"] for summary in summaries if "best_val_nll" in summary] == [best]


def test_the_final_pictures_are_there(offline_study):
    pictures = [
        file.name for file in (offline_study[1][0] / "files" / "media" / "images").glob("*.png")
    ]
    assert {name.split("_")[0] for name in pictures} == {"confusion", "feature"}


def test_tracking_is_offline_unless_asked(monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(tracking, "reachable", lambda url: pytest.fail("asked the network"))
    assert tracking.mode() == "offline"


def test_online_without_a_server_goes_offline_within_seconds(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    assert tracking.mode() == "offline"
    assert time.monotonic() - started < 10
    assert "does not answer" in capsys.readouterr().err


@pytest.fixture
def silent_server(monkeypatch):
    """A server that takes connections and never answers, and no key for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        yield


def test_online_without_a_key_goes_offline(silent_server, capsys):
    assert tracking.mode() == "offline"
    assert "there is no key for http://127.0.0.1" in capsys.readouterr().err


def test_a_server_that_keeps_silent_holds_nothing_up(
    silent_server, make_spec, tiny, monkeypatch, capfd
):
    wandb.teardown()  # it remembers that there was no key
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2)
    spec = make_spec(epochs=1)
    execute(spec, tiny)
    assert (
        time.time() - spec.folder.result_file.stat().st_mtime < 60
    )  # silence is for ever; a busy machine is slow
    assert capfd.readouterr().err.count("wandb: run is not wholly mirrored, its record is: ") == 1


def test_a_folder_that_wandb_cannot_write_is_one_line_of_warning(
    make_spec, tiny, tmp_path, monkeypatch, capfd
):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    assert execute(make_spec(epochs=1), tiny)["metrics"]
    assert [line for line in capfd.readouterr().err.splitlines() if "wandb" in line] == [
        f"wandb: run is not wholly mirrored, its record is: FileExistsError: [Errno 17] File exists: '{tmp_path / 'file'}'"
    ]


def test_a_wrong_mode_is_refused_before_training(make_spec, tiny, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(ValueError, match="WANDB_MODE: found 'onlin', expected one of offline"):
        execute(make_spec(), tiny)
    assert not make_spec().folder.history_file.read_text()
