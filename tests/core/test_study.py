"""A study gathers the results of its runs, and publishes them for `recorded`."""

import json
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

from smai_lib.core import paths, pool
from smai_lib.core.data import Dataset
from smai_lib.core.errors import ConfigError, IntegrityError, RunError
from smai_lib.core.files import record_checksum, verify_checksum, write
from smai_lib.core.study import Study, over_seeds


@pytest.fixture
def make_study(config, data):
    """Two configurations with two seeds each."""

    def make(profile="quick", data=data, **arguments):
        entries = over_seeds({"narrow": config, "wide": config.replace(width=16)}, 3, 2)
        return Study("toys", profile, entries, lambda: data, **arguments)

    return make


def make_table(study):
    return pd.DataFrame({"x": [1]})


def publish_table(name):
    """Publish a study that needs no runs."""
    data = Dataset(None, None, None, "toy", None, "f" * 64)
    tables = {"results": make_table, "history": make_table}
    Study(name, "full", [], lambda: data, tables=tables).publish()


def publish(letter, folder, report):
    """Publish five studies, at the same time as the other process."""
    paths.RESULTS = paths.WEIGHTS = folder
    (folder / letter).touch()
    while len(list(folder.glob("[ab]"))) < 2:
        time.sleep(0.01)
    for number in range(5):
        publish_table(f"{letter}{number}")


def test_a_study_gathers_its_runs(make_study):
    study = make_study(quick_epochs={"wide": 2})
    with pytest.raises(RunError, match="narrow has not finished.*train it first"):
        study.results  # noqa: B018
    study.run(engine="serial")
    results = study.results
    assert results["name"].tolist() == ["narrow", "wide", "narrow", "wide"]
    assert results["seed"].tolist() == [3, 3, 4, 4]
    assert results["epochs"].tolist() == [1, 2, 1, 2]
    assert len(study.history) == 6
    results["val_accuracy"] = 2.0
    assert study.results["val_accuracy"].max() <= 1  # a caller's change is the caller's own
    assert "80 training images from toy · seed 3 to 4" in study.caption()


def test_the_best_run_is_the_best_seed_of_the_best_configuration(make_study):
    study = make_study(rank="-val_loss")
    study.run(engine="serial")
    losses = study.results.pivot(index="seed", columns="name", values="val_loss")
    assert study.best == losses.mean().idxmin()
    for name in losses:
        assert study.run_named(name).seed == losses[name].idxmin()
    with pytest.raises(ConfigError, match="run: found 'wider', expected one of narrow, wide"):
        study.run_named("wider")
    with pytest.raises(ConfigError, match="table: found 'result', expected one of results, hist"):
        study.table("result")


def test_what_full_publishes_is_what_recorded_reads(make_study, report, data):
    tables = {"seeds": lambda study: pd.DataFrame({"seed": study.results["seed"].unique()})}
    full = make_study("full", tables=tables)
    full.run(engine="serial")
    recorded = make_study("recorded", tables=tables)
    recorded.run()  # trains nothing
    for table in ("results", "history", "seeds"):
        pd.testing.assert_frame_equal(recorded.table(table), full.table(table), check_dtype=False)
    images = data.test.images
    assert torch.equal(recorded.best_network()(images), full.best_network()(images))
    provenance = json.loads((report / "results" / "provenance.json").read_text("utf-8"))
    assert provenance["toys"]["runs"] == 4 and provenance["toys"]["best"] == recorded.best


def test_a_study_that_is_looked_up_keeps_the_date_and_notes_of_its_record(make_study, report):
    make_study("full").run(engine="serial")
    file = report / "results" / "provenance.json"
    noted = file.read_text("utf-8").replace('"runs": 4', '"runs": 4, "note": "by hand"')
    write(file, noted)
    record_checksum(file)
    make_study("full").run(engine="serial")
    assert file.read_text("utf-8") == noted
    with (report / "results" / "toys.csv").open("a", encoding="utf-8") as table:
        table.write("x")
    make_study("full").run(engine="serial")
    assert "by hand" not in file.read_text("utf-8")


def test_a_study_without_shipped_weights_has_a_network_once_it_is_trained(make_study, report, data):
    make_study("full", weights=lambda study: {}).run(engine="serial")
    with pytest.raises(IntegrityError, match="toys ships no weights.*'quick' or 'full'"):
        make_study("recorded").best_network()
    quick = make_study()
    quick.run(engine="serial")
    logits = quick.best_network()(data.test.images)
    assert logits.tolist() == quick.best_run.result()["nested"]["logits"]


def test_two_studies_that_publish_at_once_lose_no_entry(report):
    pool.run_tasks(publish, ["a", "b"], report, workers=2)
    names = {f"{letter}{number}" for letter in "ab" for number in range(5)}
    provenance = report / "provenance.json"
    assert json.loads(provenance.read_text("utf-8")).keys() == names
    verify_checksum(provenance)
    for name in names:
        verify_checksum(report / f"{name}.csv")
        verify_checksum(report / f"{name}_history.csv")


def test_nothing_is_added_to_a_damaged_record(report):
    publish_table("old")
    results = report / "results"
    (results / "provenance.json").write_text("{}", "utf-8")
    with pytest.raises(IntegrityError, match="provenance.json is truncated or altered"):
        publish_table("new")
    assert not (results / "new.csv").exists()


def test_a_stand_in_is_never_published_as_the_study(make_study, data):
    stand_in = replace(data, source="sample")
    assert make_study(data=stand_in).data.is_stand_in
    with pytest.raises(RunError, match="'full' needs the study's own data.*sample"):
        make_study("full", data=stand_in)


def test_results_of_other_data_do_not_replace_the_record(make_study, report, data):
    make_study("full").run(engine="serial")
    with pytest.raises(RunError, match="'full' needs the study's own data.*name other data"):
        make_study("full", data=replace(data, fingerprint="e" * 64))


def test_a_study_without_runs_has_no_best_one(report):
    publish_table("old")
    tables = {"results": make_table, "history": make_table}
    with pytest.raises(ConfigError, match="old: its results are not those of runs"):
        _ = Study("old", "recorded", [], lambda: None, tables=tables).best


def test_a_bad_profile_is_refused(make_study):
    with pytest.raises(ConfigError, match="profile: found 'fast', expected .*recorded, quick"):
        make_study("fast")
