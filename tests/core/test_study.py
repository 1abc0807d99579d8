from dataclasses import fields

import pandas as pd
import pytest

from smai_lib import studies
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.core import paths, runs
from smai_lib.multitask.config import MultiTaskConfig


def test_a_study_gathers_its_runs(tiny):
    study = studies.ten_configs("quick", seed=3, data=tiny)
    with pytest.raises(runs.RunError, match="config 1 has not finished"):
        study.results()
    study.specs[:] = study.specs[3:4]
    study.run(engine="serial")
    results = study.results()
    assert results["name"].tolist() == ["config 4"] and results["seed"].tolist() == [3]
    assert isinstance(study.history(), pd.DataFrame) and "SAMPLE DATA" in study.caption()


def test_an_unknown_profile_lists_the_known(tiny):
    with pytest.raises(ValueError, match="recorded, quick, full"):
        studies.ten_configs("fast", data=tiny)


def test_a_seed_that_is_no_number_is_refused_by_every_study():
    for name in studies.STUDIES:
        with pytest.raises(ValueError, match="'seed': found 'abc', expected a value of type int"):
            studies.STUDIES[name]("recorded", seed="abc")


def test_the_sample_is_never_published_as_the_study(tiny):
    for study in (studies.ten_configs, studies.lambda_study):
        with pytest.raises(
            runs.RunError, match="only .*sample.* was found; see `python -m smai_lib fetch`"
        ):
            study("full", data=tiny)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("q1_configs", MultiTaskConfig),
        ("q1_lambda", MultiTaskConfig),
        ("q1_best", MultiTaskConfig),
        ("q2_models", ColorizationConfig),
    ],
)
def test_recorded_rows_have_the_id_of_their_own_run(name, kind, tmp_path):
    """A key that the configuration got after a table was recorded is at its default there."""
    rows = pd.read_csv(paths.RESULTS / f"{name}.csv").to_dict("records")
    keys = [field.name for field in fields(kind) if field.name in rows[0]]
    computed = [
        runs.RunSpec(
            row["name"],
            name,
            kind(**{key: row[key] for key in keys}),
            row["seed"],
            row["data_fingerprint"],
            tmp_path,
        ).run_id
        for row in rows
    ]
    assert computed == [row["run_id"] for row in rows]
    assert len(set(computed)) == len(rows) > 1
