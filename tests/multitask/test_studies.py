import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import smai_lib as smai
from smai_lib.core import paths
from smai_lib.core.errors import IntegrityError
from smai_lib.core.files import record_checksum
from smai_lib.core.layers import parameter_count
from smai_lib.multitask import studies
from smai_lib.multitask.studies import (
    CONFIG_7_AS_RUN,
    PUBLISHED,
    PUBLISHED_CONFIGS,
    published_configs,
)


@pytest.fixture
def published(record):
    """A function that returns the published study with given results.

    A row is name, seed, val accuracy, val RMSE, test accuracy and mistaken test RMSE.
    """

    def make(rows, confusion=None):
        table = pd.DataFrame(rows, columns=["name", "seed", *PUBLISHED])
        table = table.assign(num_layers=3, test_rmse=0.02, test_mae=0.01)
        record({"q1_published.csv": table, "q1_published_confusion.csv": confusion})
        return published_configs()

    return make


def test_config_1_has_the_published_number_of_parameters():
    """The golden run ids pin every key of the configurations."""
    assert parameter_count(PUBLISHED_CONFIGS["config 1"].build_network()) == 106_187


def test_comparison_and_agreement_by_hand(published):
    shift = [0.01, 0, -0.02, 0]
    rows = [
        (name, 0, *(PUBLISHED.loc[name] + shift))
        for name in ("config 1", "config 4", CONFIG_7_AS_RUN)
    ]
    rows.append(("config 7", 0, 0.1, 1, 0.1, 1))  # no agreement: it was not run as printed
    rows.append(("config 1", 1, 0.2, 1, 0.2, 1))  # not compared: a further seed
    study = published(rows)
    table = studies.comparison(study).set_index("run")
    differences = table["val_accuracy_difference"]
    assert differences.drop("config 7").to_numpy() == pytest.approx([0.01] * 3)
    assert table.loc["config 4", ["published_val_rmse", "test_rmse"]].tolist() == [0.033, 0.02]
    agreement = studies.agreement(study, "test_accuracy")
    assert agreement["runs"] == 3
    assert agreement["mean_difference"] == pytest.approx(-0.02)


def test_a_published_value_is_placed_within_what_one_more_seed_would_give(published):
    accuracy = np.array([0.880, 0.882, 0.884, 0.881, 0.883])
    half = stats.t.ppf(0.975, 4) * accuracy.std(ddof=1) * np.sqrt(1 + 1 / 5)
    test = accuracy - accuracy.mean() + 0.8877 - 1.01 * half  # just too far from 0.8877
    rows = [("config 1", seed, accuracy[seed], 0.03, test[seed], 0.3) for seed in range(5)]
    rows.append(("config 2", 0, 0.877, 0.03, 0.87, 0.3))  # one seed has no spread
    table = studies.placement_of_published(published(rows)).set_index("metric")
    assert set(table["run"]) == {"config 1"}
    assert table["outside"].tolist() == [False, True, True, True]


def test_the_two_selected_runs_are_of_the_first_seed(published):
    rows = [
        ("config 1", 0, 0.88, 0.03, 0.87, 0.3),
        ("config 3", 0, 0.89, 0.04, 0.86, 0.3),
        ("config 7", 0, 0.80, 0.01, 0.79, 0.3),
        ("config 1", 1, 0.99, 0.001, 0.99, 0.3),
    ]
    perfect, other = pd.DataFrame([[5, 0], [0, 5]]), pd.DataFrame([[4, 0], [2, 0]])
    confusion = pd.concat([perfect.assign(name="config 3"), other.assign(name="config 7")])
    study = published(rows, confusion)
    table = studies.selection(study).set_index("chosen_by")
    assert table["name"].to_dict() == {
        "highest validation accuracy": "config 3",
        "lowest validation RMSE": "config 7",
    }
    assert table["test_accuracy"].tolist() == [0.86, 0.79]
    assert table["test_macro_f1"].tolist() == pytest.approx([1, (0.8 + 0) / 2])
    assert study.best == "config 3"


@pytest.mark.filterwarnings("ignore:config key 'ink_target'")
def test_quick_trains_the_published_study_and_the_first_seed_is_its_best_run(tiny):
    study = published_configs("quick", data=tiny)
    assert [run.name for run in study.runs] == list(PUBLISHED_CONFIGS)
    small = study.runs[0].config.replace(base_filters=4)
    study.runs = [replace(study.runs[0], config=small, seed=seed) for seed in (0, 1)]
    study.run(engine="serial")
    assert study.best_run.seed == 0 and study.table("ink_baselines")["rmse"].idxmin() == 2
    counts = studies.confusion(study, "config 1")
    assert counts.tolist() == study.runs[0].result()["nested"]["confusion"]
    right = counts.trace() / len(tiny.test.labels)
    assert right == pytest.approx(study.results["test_accuracy"][0])


@pytest.fixture
def shipped(tiny, tmp_path, monkeypatch):
    """A lambda study of two trained runs, whose backbones ship."""
    study = smai.load_study("q1_lambda", "quick", data=tiny)
    study.runs = [run for run in study.runs if run.name == "z_score 10"]
    study.run(engine="serial")
    file = tmp_path / "q1_lambda_backbones.safetensors"
    shutil.copy(studies.save_backbones(study)["backbones"], file)
    record_checksum(file)
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    return study


def test_a_shipped_backbone_has_the_maps_of_its_run_and_makes_no_predictions(shipped):
    assert shipped.results["ratio"].tolist() == [10, 10]
    images = torch.rand(4, 1, 28, 28)
    for run in shipped.runs:
        loaded = studies.backbone(shipped, run.name, run.seed)
        trained = run.load_model()
        torch.testing.assert_close(loaded.backbone(images), trained.backbone(images))
        with pytest.raises(AttributeError, match="regressor|classifier"):
            loaded(images)


def test_an_unknown_backbone_is_refused_with_a_list_of_all(shipped):
    expected = "no backbone 'z_score 1/0', expected one of z_score 10/0, z_score 10/1$"
    with pytest.raises(IntegrityError, match=expected):
        studies.backbone(shipped, "z_score 1", 0)


def test_altered_backbones_are_refused(shipped):
    file = paths.WEIGHTS / "q1_lambda_backbones.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="truncated or altered"):
        studies.backbone(shipped, "z_score 10", 0)


@pytest.mark.parametrize("name", ["q1_published", "q1_best", "q1_beyond"])
def test_the_shipped_network_is_as_good_as_its_rows_say(sample, name):
    study = smai.load_study(name, data=sample)
    rows = study.results.query("name == @study.best").mean(numeric_only=True)  # over seeds
    model = study.best_network()
    assert parameter_count(model) == rows["parameters"]
    with torch.inference_mode():
        output = model(sample.test.images.float() / 255)
    accuracy = (output.logits.argmax(1) == sample.test.labels).float().mean().item()
    # the sample has 1,000 test images, so within four standard errors
    assert abs(accuracy - rows["test_accuracy"]) < 4 * (0.9 * 0.1 / 1000) ** 0.5
    rmse = (output.ink - sample.test.ink).square().mean().sqrt().item()
    assert rmse == pytest.approx(rows["test_rmse"], rel=0.15)
