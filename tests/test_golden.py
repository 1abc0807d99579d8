"""What must not change: the ids of recorded runs, and the shipped files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import smai_lib as smai
from smai_lib.core import paths
from smai_lib.core.errors import ConfigError
from smai_lib.core.files import sha256

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))


@pytest.mark.parametrize("name", GOLDEN["run_ids"])
def test_a_recorded_run_keeps_its_id_so_that_its_folder_is_found_again(name):
    study = smai.load_study(name)
    fingerprint = study.results["data_fingerprint"].iloc[0]
    runs = [replace(run, data_fingerprint=fingerprint) for run in study.runs]
    planned = {f"{run.name}/{run.seed}": run.run_id for run in runs}
    expected = GOLDEN["run_ids"][name]
    assert {run: planned.get(run) for run in expected} == expected
    rows = study.results.set_index(["name", "seed"])["run_id"]
    assert {f"{name}/{seed}": run_id for (name, seed), run_id in rows.items()} == expected


@pytest.mark.parametrize("file", GOLDEN["files"])
def test_a_shipped_file_keeps_every_byte(file):
    assert sha256(paths.ROOT / file) == GOLDEN["files"][file]


def test_recorded_results_are_the_same_for_every_seed_that_is_asked_for():
    study = smai.load_study("q1_published", seed=1)
    assert study.best_run.seed == 0
    assert study.best_network() is not None
    with pytest.raises(ConfigError, match="seed: found 1, expected 0: the profile 'full'"):
        smai.load_study("q1_published", "full", seed=1)
