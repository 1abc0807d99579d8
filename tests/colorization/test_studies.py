from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from smai_lib.colorization import metrics, studies
from smai_lib.colorization.studies import CLASS_HEAD, PUBLISHED, SWEEP_CONFIGS, TABLE
from smai_lib.core import paths, stats
from smai_lib.core.errors import RunError

NAMES = ["report CNN", "tuned CNN", "CNN + prior", "U-Net", "CNN", "U-Net without prior"]


@pytest.fixture(scope="module")
def small_data(made_up_colors):
    return made_up_colors((16, 12, 12))


@pytest.fixture(scope="module")
def study(tmp_path_factory, small_data):
    """A quick study, its networks trained for an epoch on a few images."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SMAI_RUNS", str(tmp_path_factory.mktemp("runs")))
    patch.setenv("WANDB_MODE", "disabled")
    patch.setattr(studies, "QUICK_EPOCHS", {})
    quick = studies.color_models("quick", 0, small_data)
    quick.run(engine="serial")
    yield quick
    patch.undo()


@pytest.fixture
def with_results(monkeypatch):
    """A function that gives a recorded study other results."""

    def change(study, table):
        monkeypatch.setitem(study._tables, "", pd.DataFrame(table))
        return study

    return change


def test_the_studies_train_the_networks_of_the_report(study, small_data):
    assert study.results["name"].tolist() == NAMES
    assert study.results["run_id"].nunique() == 6
    full = studies.color_models("full", 0, small_data)
    assert [(run.name, run.seed) for run in full.runs] == [(n, s) for s in range(3) for n in NAMES]
    unet, cnn = studies.MODELS["U-Net"], studies.MODELS["CNN + prior"]
    assert studies.MODELS["U-Net without prior"].to_dict() == unet.to_dict() | {
        "model": "unet_no_prior"
    }
    assert studies.MODELS["CNN"].to_dict() == cnn.to_dict() | {"model": "cnn"}
    auxiliary = studies.color_auxiliary("full", 0, small_data).runs
    assert [run.config for run in auxiliary] == [unet.replace(class_weight=0.1)] * 3


def test_results_are_those_of_the_weights_that_the_runs_left(study):
    for run in study.runs:
        model, measured = run.load_model(), run.metrics
        for prefix, split, mirror in (
            ("test_", study.data.test, False),
            ("test_mirror_", study.data.test, True),
            ("val_mirror_", study.data.validation, True),
        ):
            scores = metrics.score(model, split, study.data.palette, mirror=mirror).metrics()
            for key in ("accuracy", "nll", "balanced_accuracy", "psnr_grey"):
                assert measured[prefix + key] == pytest.approx(scores[key].item(), abs=1e-6)
    assert measured["test_nll"] != measured["test_mirror_nll"]


def test_intervals_agree_with_the_images_they_come_from(study):
    images, intervals = study.table("images"), study.table("intervals")
    intervals = intervals.set_index(["name", "metric"])
    reference = studies.scores(study)[TABLE]
    for name in ("report CNN", "U-Net"):
        for metric in ("accuracy", "nll"):
            values = studies.scores(study)[name].means[metric]
            assert images[f"{metric}: {name}"].tolist() == values.round(4).tolist()
            row, gap = intervals.loc[name, metric], values - reference.means[metric]
            assert row["value"] == pytest.approx(values.mean(), abs=1e-5)
            assert row["difference"] == pytest.approx(gap.mean(), abs=2e-5)
            width = 2 * 1.96 * gap.std() / len(gap) ** 0.5
            measured = row["difference_high"] - row["difference_low"]
            assert measured == pytest.approx(width, rel=0.2, abs=1e-4)
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


def test_more_alpha_means_more_colour(study):
    table = study.table("vividness")
    assert table["split"].unique().tolist() == ["validation", "test"]
    for name, split in {"validation": study.data.validation, "test": study.data.test}.items():
        rows = table[table["split"] == name]
        plain = metrics.score(study.best_network(), split, study.data.palette).metrics()
        assert rows.iloc[0]["nll"] == pytest.approx(plain["nll"].item())
        truth = metrics.colorfulness(split.images).mean().item()
        assert rows["colorfulness_truth"].tolist() == pytest.approx([truth] * len(rows))
        assert rows.iloc[-1]["nll"] != rows.iloc[0]["nll"]


def test_the_best_network_is_chosen_on_validation(study, with_results):
    table = {"name": NAMES[:3], "val_mirror_nll": [3, 1, 2], "test_mirror_nll": [1, 3, 2]}
    assert with_results(study, table).best == "tuned CNN"


def test_summary_shows_the_spread_over_seeds_and_plain_values_of_baselines(study, with_results):
    baselines = study.table("baselines").set_index("name")
    seeds = {"name": ["U-Net"] * 3 + ["CNN"], "test_mirror_nll": [1.0, 2.0, 3.0, 4.0]}
    summary = studies.summary(with_results(study, seeds), ["test_mirror_nll"])
    column = summary.set_index("model")["test_mirror_nll"]
    assert column["U-Net"] == "2.0000 ± 1.0000" and column["CNN"] == "4.0000"
    assert column[TABLE] == f"{baselines.loc[TABLE, 'test_nll']:.4f}"


def test_shipped_weights_take_half_the_room_and_predict_the_same(study, tmp_path):
    run = study.run_named("U-Net")
    model, file = run.load_model(), studies.half_precision(run.weights_file)
    assert file.stat().st_size < 0.55 * run.weights_file.stat().st_size
    assert {x.dtype for x in load_file(file).values() if x.is_floating_point()} == {torch.float16}
    inputs = study.data.test.inputs(slice(None))
    with torch.inference_mode():
        difference = run.config.load_model(file)(inputs).softmax(1) - model(inputs).softmax(1)
    assert difference.abs().max() < 0.01


def test_the_class_head_is_not_shipped(study, tmp_path):
    config = studies.UNET.replace(num_filters=2, class_weight=0.1)
    _, model = config.build(study.data, 0)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    assert not any("class_head" in name for name in load_file(studies.half_precision(file)))


def test_what_full_ships_is_what_recorded_reads(study, tmp_path, monkeypatch):
    for name in ("RESULTS", "WEIGHTS"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    study.publish(studies.shipped_weights(study))
    recorded = studies.color_models()
    recorded.data = study.data
    assert recorded.best == study.best
    for name in study.table_functions:
        pd.testing.assert_frame_equal(recorded.table(name), study.table(name), check_dtype=False)
    shipped, trained = studies.examples(recorded), studies.examples(study)
    assert shipped.keys() == trained.keys()
    assert torch.equal(shipped["truth"], trained["truth"])


def test_examples_show_each_class_with_the_accuracy_of_its_picture(study):
    examples = studies.examples(study)
    best, data = study.best, study.data
    assert list(examples) == [
        "grey", "truth", "report's network", best, f"{best}, vivid", "titles",
    ]  # fmt: skip
    assert [title.split("\n")[0] for title in examples["titles"]] == list(data.names)
    network = study.best_network()
    for number, (title, truth) in enumerate(
        zip(examples["titles"], examples["truth"], strict=True)
    ):
        index = (data.test.images == truth).flatten(1).all(1).nonzero().item()
        assert data.test.labels[index] == number
        predicted = network(data.test.inputs(slice(index, index + 1))).argmax(1)[0]
        accuracy = (predicted == data.test.colors[index]).float().mean().item()
        assert title.endswith(f"\n{accuracy:.0%}")
    chosen = studies.examples(study, [3])
    assert torch.equal(chosen["truth"], data.test.images[3:4])


def test_a_stand_in_is_refused_by_the_full_studies(small_data):
    patches = replace(small_data, source="bundled photo patches")
    for builder in (studies.color_sweep, studies.color_models, studies.color_auxiliary):
        with pytest.raises(RunError, match="only bundled photo patches is available"):
            builder("full", 0, patches)


def test_networks_without_recorded_results_break_nothing():
    recorded = studies.color_models()
    assert set(recorded.results["name"]) <= set(NAMES)
    assert set(studies.summary(recorded, ["test_nll"])["model"]) >= {TABLE, "U-Net"}
    assert "epochs" in recorded.caption()


def test_the_class_head_is_compared_with_the_unet_seed_by_seed(with_results):
    unet = {"name": ["U-Net"] * 3, "seed": [0, 1, 2], "nll": [1.0, 2.0, 4.0]}
    head = {"name": [CLASS_HEAD] * 3, "seed": [0, 1, 2], "nll": [0.9, 1.8, 3.9]}
    auxiliary = with_results(studies.color_auxiliary(), head)
    models = with_results(studies.color_models(), unet)
    row = studies.class_head_difference(auxiliary, models, "nll", margin=0.01).iloc[0]
    assert row["difference"] == pytest.approx(-0.4 / 3)
    expected = stats.paired_differences(
        pd.DataFrame(unet | {"nll": [0, 0, 0]})._append(
            pd.DataFrame(head | {"nll": [-0.1, -0.2, -0.1]})
        ),
        "nll", [(CLASS_HEAD, "U-Net")], margin=0.01,
    ).iloc[0]  # fmt: skip
    assert row["p"] == pytest.approx(expected["p"])


def test_the_sweep_trains_the_published_configurations():
    assert list(SWEEP_CONFIGS) == [f"run {number}" for number in range(1, 22)]
    best = SWEEP_CONFIGS["run 10"]
    keys = ("learning_rate", "batch_size", "num_filters", "kernel_size", "optimizer")
    assert tuple(getattr(best, key) for key in keys) == (1e-3, 32, 32, 5, "Adam")
    assert studies.REPORT_CNN is best and best.num_colors == 24
    for config in SWEEP_CONFIGS.values():
        trained = (config.model, config.epochs, config.schedule, config.keep)
        assert trained == ("cnn", 30, "constant", "best")
        assert config.momentum == (0.9 if config.optimizer == "SGD" else 0)
    assert sum(config.optimizer == "SGD" for config in SWEEP_CONFIGS.values()) == 5
    assert PUBLISHED["nll"].idxmin() == PUBLISHED["accuracy"].idxmax() == "run 10"
    assert PUBLISHED["accuracy"].max() == 0.5011


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
    assert agreement["runs"] == 2 and agreement["rank_correlation"] == pytest.approx(1)
    assert agreement["mean_difference"] == pytest.approx(-0.01)
    assert agreement["mean_absolute_difference"] == pytest.approx(0.02)
    assert studies.agreement(sweep)["runs"] == 3
    assert sweep.best == "run 10"


def test_the_quick_sweep_trains(made_up_colors, monkeypatch):
    few = {name: SWEEP_CONFIGS[name].replace(num_filters=2) for name in ("run 10", "run 17")}
    monkeypatch.setattr(studies, "SWEEP_CONFIGS", few)
    sweep = studies.color_sweep("quick", data=made_up_colors((40, 10, 10)))
    sweep.run(engine="serial")
    assert studies.comparison(sweep)["run"].tolist() == ["run 10", "run 17"]
    assert (sweep.results["tested_epoch"] == sweep.results["best_epoch"]).all()
