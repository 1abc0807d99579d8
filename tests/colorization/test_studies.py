import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from smai_lib.colorization import metrics, studies
from smai_lib.colorization.studies import TABLE
from smai_lib.core import paths


@pytest.fixture(scope="module")
def study(tmp_path_factory, made_up_colors):
    """A quick study, its networks trained for an epoch on a few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMAI_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(studies, "QUICK_EPOCHS", {})
        quick = studies.color_models("quick", data=made_up_colors((16, 12, 12)))
        quick.run(engine="serial")
    return quick


@pytest.fixture
def with_results(monkeypatch):
    """A function that gives a study other results."""

    def change(study, table):
        monkeypatch.setattr(type(study), "results", pd.DataFrame(table))
        return study

    return change


def test_results_are_those_of_the_weights_that_the_runs_left(study):
    run, data = study.run_named("U-Net"), study.data
    for prefix, split, mirror in (
        ("test_", data.test, False),
        ("test_mirror_", data.test, True),
        ("val_mirror_", data.validation, True),
    ):
        scores = metrics.score(run.load_model(), split, data.palette, mirror=mirror)
        for key in ("accuracy", "nll", "psnr_grey"):
            assert run.metrics[prefix + key] == pytest.approx(scores[key].mean(), abs=1e-6)


def test_intervals_agree_with_the_images_they_come_from(study):
    images, intervals = study.table("images"), study.table("intervals")
    intervals = intervals.set_index(["name", "metric"])
    scores = studies.scores_on_test(study)
    values, reference = scores["U-Net"]["nll"], scores[TABLE]["nll"]
    assert images["nll: U-Net"].tolist() == values.round(4).tolist()
    row, difference = intervals.loc["U-Net", "nll"], values - reference
    assert row["value"] == pytest.approx(values.mean(), abs=1e-5)
    assert row["difference"] == pytest.approx(difference.mean(), abs=2e-5)
    assert (intervals.loc[TABLE].filter(like="difference") == 0).all(axis=None)


def test_colors_add_up_to_all_pixels(study):
    intervals = study.table("intervals").set_index(["name", "metric"])
    for name, rows in study.table("colors").groupby("name"):
        assert rows["pixels"].sum() == study.data.test.colors.numel()
        for metric in ("accuracy", "nll"):
            mean = np.average(rows[metric].fillna(0), weights=rows["pixels"])
            assert mean == pytest.approx(intervals.loc[(name, metric), "value"], abs=2e-4)


def test_frequencies_are_shares_of_training_pixels(study):
    train = study.data.train.colors
    counts = train.flatten().bincount(minlength=24)
    assert study.table("frequency")["share"].tolist() == pytest.approx(
        (counts / train.numel()).tolist(), abs=24 / train.numel()
    )


def test_vividness_is_measured_on_both_splits(study):
    table = study.table("vividness")
    for name, split in {"validation": study.data.validation, "test": study.data.test}.items():
        rows = table[table["split"] == name]
        plain = metrics.score(study.best_network(), split, study.data.palette)
        truth = metrics.colorfulness(split.images).mean().item()
        assert rows["nll"].iloc[0] == pytest.approx(plain["nll"].mean())
        assert rows["colorfulness_truth"].iloc[0] == pytest.approx(truth)
        assert rows["nll"].nunique() == len(studies.ALPHAS)


def test_the_best_network_is_chosen_on_validation(study, with_results):
    table = {"name": ["CNN", "U-Net"], "val_mirror_nll": [1, 2], "test_mirror_nll": [2, 1]}
    assert with_results(study, table).best == "CNN"


def test_summary_shows_the_spread_over_seeds_and_plain_values_of_baselines(study, with_results):
    baselines = study.table("baselines").set_index("name")
    seeds = {"name": ["U-Net"] * 3 + ["CNN"], "test_mirror_nll": [1.0, 2.0, 3.0, 4.0]}
    summary = studies.summary(with_results(study, seeds), ["test_mirror_nll"])
    column = summary.set_index("model")["test_mirror_nll"]
    assert column["U-Net"] == "2.0000 ± 1.0000" and column["CNN"] == "4.0000"
    assert column[TABLE] == f"{baselines.loc[TABLE, 'test_nll']:.4f}"


def test_shipped_networks_take_half_the_room_and_colour_like_the_trained_ones(
    study, tmp_path, monkeypatch
):
    for name in ("RESULTS", "WEIGHTS"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    study.publish(studies.shipped_weights(study))
    for file in paths.WEIGHTS.glob("*.safetensors"):
        floats = {x.dtype for x in load_file(file).values() if x.is_floating_point()}
        assert floats == {torch.float16}
    recorded = studies.color_models()
    recorded.data = study.data
    shipped, trained = studies.examples(recorded)[0], studies.examples(study)[0]
    for name, picture in shipped.items():
        difference = picture.int() - trained[name].int()
        assert (difference.abs() <= 8).float().mean() > 0.99


def test_the_class_head_does_not_ship(study):
    file = study.run_named(studies.CLASS_HEAD).weights_file
    heads = {name for name in load_file(file) if "class_head" in name}
    assert heads and set(load_file(file)) - set(load_file(studies.half_precision(file))) == heads


def test_a_gain_is_paired_by_seed(study, with_results):
    table = {
        "name": ["U-Net"] * 3 + [studies.CLASS_HEAD] * 3,
        "seed": [0, 1, 2, 2, 1, 0],
        "test_mirror_accuracy": [0.1, 0.5, 0.9, 0.93, 0.52, 0.11],
        "test_mirror_nll": [1.0, 2.0, 3.0, 2.0, 1.0, 0.0],
    }
    gain = studies.gain_by_seed(with_results(study, table), studies.CLASS_HEAD, "U-Net")
    assert gain["difference"].tolist() == pytest.approx([0.02, -1.0])
    assert gain.loc["accuracy", "high"] == pytest.approx(0.02 + 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert gain.loc["nll", "low"] == -1.0  # all seeds gain alike


def test_examples_show_each_class_with_the_accuracy_of_its_picture(study):
    rows, titles = studies.examples(study)
    data = study.data
    assert list(rows) == ["grey", "truth", "reference", "ours", "ours, vivid"]
    predicted = study.best_network()(data.test.inputs(slice(None))).argmax(1)
    accuracy = (predicted == data.test.colors).float().mean((1, 2))
    for label, truth in enumerate(rows["truth"]):
        index = (data.test.images == truth).flatten(1).all(1).nonzero().item()
        assert data.test.labels[index] == label
        assert titles[label] == f"{data.names[label]}\n{accuracy[index]:.0%}"
    assert torch.equal(studies.examples(study, [3])[0]["truth"], data.test.images[3:4])


def test_agreement_with_the_published_runs_by_hand(with_results):
    results = {
        "name": ["run 10", "run 17", "run 1"],
        "val_nll": [1.3077 + 0.01, 2.7519 - 1.0, 1.5157 - 0.03],
        "val_accuracy": [0.50, 0.20, 0.45],
        "best_val_loss": [1.29, 1.7, 1.4],
    }
    sweep = with_results(studies.color_sweep(), results)
    table = studies.comparison(sweep).set_index("run")
    assert list(table.index) == ["run 1", "run 10", "run 17"]  # finished ones, as published
    assert table.loc["run 17", "accuracy_difference"] == pytest.approx(0.20 - 0.1462)
    agreement = studies.agreement(sweep, without=["run 17"])
    assert agreement["runs"] == 2 and agreement["mean_difference"] == pytest.approx(-0.01)
    assert sweep.best == "run 10"
