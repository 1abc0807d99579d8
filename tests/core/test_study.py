import pandas as pd
import pytest

from smai_lib import studies
from smai_lib.core import runs


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


def test_the_sample_is_never_published_as_the_study(tiny):
    for study in (studies.ten_configs, studies.lambda_study):
        with pytest.raises(runs.RunError, match="only .*sample.* was found; see `python -m smai_lib fetch`"):
            study("full", data=tiny)
