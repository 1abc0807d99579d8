import json
import subprocess
import sys
import time

import pandas as pd
import pytest

from smai_lib import studies
from smai_lib.core import tracking
from smai_lib.core.study import Study


@pytest.fixture(scope="module")
def offline_study(sample, tmp_path_factory):
    """The ten configurations, two short epochs each, with real offline wandb files."""
    from smai_lib.core.runs import RunSpec
    from smai_lib.multitask.config import MultiTaskConfig

    data, root = sample.subset(256, 50, 50), tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(root))
        specs = [RunSpec(name, "q1_configs", MultiTaskConfig.from_dict(config.to_dict() | {"epochs": 2}), 0,
                         data.fingerprint, root / "runs")
                 for name, config in studies.TEN_CONFIGS.items()]
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
    rows = pd.DataFrame(record["history"]["item"] for record in records(folder) if record["type"] == "history")
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
            mirrored[spec.name][list(history.columns)].astype(float), history.astype(float), check_exact=True
        )


def test_a_mirror_names_group_job_and_config(offline_study):
    header = json.dumps(record_of(offline_study[1][0], "run"))
    for expected in ("q1_configs", "train", "lambda1", "base_filters", "data_fingerprint", "seed 0"):
        assert expected in header, expected


def test_the_final_pictures_are_there(offline_study):
    pictures = [file.name for file in (offline_study[1][0] / "files" / "media" / "images").glob("*.png")]
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
