from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from smai_lib.colorization import metrics, palette, studies, tables
from smai_lib.colorization.studies import TABLE, half
from smai_lib.colorization.sweep import CONFIGS
from smai_lib.core import paths, runs
from smai_lib.core.sources import PATCH_SOURCE

SPLITS = (16, 12, 12)


@pytest.fixture(scope="module")
def study(tmp_path_factory, made_up_colors):
    """A quick study, its networks trained for an epoch on a few images."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SMAI_RUNS", str(tmp_path_factory.mktemp("runs")))
    patch.setenv("WANDB_MODE", "disabled")
    patch.setattr(studies, "QUICK_EPOCHS", dict.fromkeys(studies.QUICK_EPOCHS, 1))
    found = studies.color_models("quick", 0, made_up_colors(SPLITS))
    found.run(engine="serial")
    yield found
    patch.undo()


def test_the_study_holds_the_four_networks(study, made_up_colors):
    results = study.results().set_index("name")
    assert list(results.index) == ["report CNN", "tuned CNN", "CNN + prior", "U-Net"]
    assert results["run_id"].nunique() == 4 and (results["epochs"] == 1).all()
    full = studies.color_models("full", 0, made_up_colors(SPLITS)).specs
    assert [spec.seed for spec in full] == [0] * 4 + [1] * 4 + [2] * 4


def test_results_are_those_of_the_weights_that_the_runs_left(study):
    for spec in study.specs:
        measured = study.result(spec)["metrics"]
        model = study.network(spec)
        for prefix, split, mirror in (
            ("test_", study.data.test, False),
            ("test_mirror_", study.data.test, True),
            ("val_mirror_", study.data.validation, True),
        ):
            found = metrics.score(model, split, study.data.palette, mirror=mirror).metrics().iloc[0]
            for key in ("accuracy", "nll", "balanced_accuracy", "psnr_grey"):
                assert measured[prefix + key] == pytest.approx(found[key], abs=1e-6)
    assert measured["test_nll"] != measured["test_mirror_nll"]


def test_baselines_are_rows_like_any_model(study):
    rows = study.baselines().set_index("name")
    split = study.data.validation
    table = tables.baselines(study.data)[TABLE].log_probs[0]  # (256, NC)
    log_probs = table[split.grey[:, 0].long()]  # (N, H, W, NC)
    nll = -log_probs.gather(-1, split.colors.long().unsqueeze(-1)).double().mean().item()
    assert rows.loc[TABLE, "val_nll"] == pytest.approx(nll, rel=1e-6)
    right = (log_probs.argmax(-1) == split.colors).double().mean().item()
    assert rows.loc[TABLE, "val_accuracy"] == pytest.approx(right)
    assert len(rows) == 4 and rows.loc[TABLE, "test_nll"] != rows.loc[TABLE, "val_nll"]


def test_intervals_agree_with_the_images_they_come_from(study):
    images, intervals = study.images(), study.intervals().set_index(["name", "metric"])
    assert len(images) == len(study.data.test.images)
    for name in ("report CNN", "U-Net"):
        for metric in ("accuracy", "nll"):
            row, values, by_table = (
                intervals.loc[name, metric],
                *(study.scores[x].means[metric] for x in (name, TABLE)),
            )
            assert (
                images[f"{metric}: {name}"] == values.round(4)
            ).all()  # a table keeps four decimals, a mean all
            gap = values - by_table
            assert row["value"] == pytest.approx(values.mean(), abs=1e-5)
            assert row["difference"] == pytest.approx(gap.mean(), abs=2e-5)
            half = 1.96 * gap.std() / len(gap) ** 0.5
            assert row["difference_high"] - row["difference_low"] == pytest.approx(
                2 * half, rel=0.2, abs=1e-4
            )
    assert (intervals.loc[TABLE][["difference", "difference_low", "difference_high"]] == 0).all(
        axis=None
    )


def test_the_best_is_chosen_on_validation(study, monkeypatch):
    results = study.results().assign(
        val_mirror_nll=[3.0, 2.0, 1.0, 4.0], test_mirror_nll=[1.0, 2.0, 3.0, 4.0]
    )
    monkeypatch.setattr(type(study), "results", lambda self: results)
    assert study.best() == "CNN + prior"


def test_summary_shows_the_spread_over_seeds_and_plain_values_of_baselines(study, monkeypatch):
    one = study.summary(["test_mirror_nll"]).set_index("model")["test_mirror_nll"]
    assert "±" not in one["U-Net"]
    assert one[TABLE] == f"{study.baselines().set_index('name').loc[TABLE, 'test_nll']:.4f}"
    runs_of = pd.DataFrame({"name": ["U-Net"] * 3, "test_mirror_nll": [1.0, 2.0, 3.0]})
    monkeypatch.setattr(type(study), "results", lambda self: runs_of)
    assert (
        study.summary(["test_mirror_nll"]).set_index("model").loc["U-Net"].item()
        == "2.0000 ± 1.0000"
    )


def test_mean_scores_are_means_of_the_seeds_metrics(study):
    palette, split = study.data.palette, study.data.test
    parts = [metrics.score(study.network(spec), split, palette) for spec in study.specs[1:]]
    mean = metrics.mean_scores(parts).metrics().iloc[0]
    for key in ("accuracy", "nll", "balanced_accuracy", "psnr"):
        assert mean[key] == pytest.approx(np.mean([x.metrics()[key].item() for x in parts]))
    other = metrics.score(study.network(study.specs[0]), study.data.validation, palette)
    with pytest.raises(ValueError, match="same images"):
        metrics.mean_scores([parts[0], other])


def test_shipped_weights_take_half_the_room_and_predict_the_same(study, tmp_path):
    spec = study.best_spec("U-Net")
    model, file = study.network(spec), half(spec.weights_file)
    assert file.stat().st_size < 0.55 * spec.weights_file.stat().st_size
    assert {x.dtype for x in load_file(file).values() if x.is_floating_point()} == {torch.float16}
    shipped = spec.config.load(file)
    inputs = study.data.test.inputs(slice(None))
    with torch.inference_mode():
        assert (shipped(inputs).softmax(1) - model(inputs).softmax(1)).abs().max() < 0.01


def test_what_is_shipped_is_what_recorded_reads(study, tmp_path, monkeypatch):
    for name in ("RESULTS", "WEIGHTS"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    study.publish()
    recorded = replace(study, profile="recorded")
    recorded.run()
    assert recorded.best() == study.best()
    for frame in ("results", "baselines", "intervals", "images", "by_color", "ceiling", "history"):
        pd.testing.assert_frame_equal(
            getattr(recorded, frame)(), getattr(study, frame)(), check_dtype=False
        )
    for name, pixels in study.examples().items():
        assert np.array_equal(recorded.examples()[name], pixels)
    inputs = study.data.test.inputs(slice(0, 2))
    with torch.inference_mode():
        gap = recorded.best_network()(inputs).softmax(1) - study.best_network()(inputs).softmax(1)
    assert gap.abs().max() < 0.01


def test_examples_hold_one_of_each_class_gains_and_failures(study):
    examples, images = study.examples(), study.images()
    right = images[f"accuracy: {study.best()}"]
    gain = right - images[f"accuracy: {TABLE}"]
    names, extremes = study.data.names, studies.EXTREMES
    assert [title.split("\n")[0] for title in examples["titles"]] == [
        *names,
        *["gain"] * extremes,
        *["failure"] * extremes,
    ]
    for place, name in enumerate(names):  # each class's example is of that class
        of_class = study.data.test.images[
            torch.from_numpy(images["class"].to_numpy() == name)
        ].numpy()
        assert (of_class == examples["truth"][place]).all((1, 2, 3)).any()
    for place, index in ((len(names), gain.idxmax()), (-extremes, right.idxmin())):
        assert np.array_equal(examples["truth"][place], study.data.test.images[int(index)].numpy())
    assert np.array_equal(
        examples["grey"], examples["truth"].astype(int).mean(1, keepdims=True).round()
    )


def test_colors_add_up_to_the_whole(study):
    frame, intervals = study.by_color(), study.intervals().set_index(["name", "metric"])
    for name, rows in frame.groupby("name"):
        assert rows["pixels"].sum() == study.data.test.colors.numel()
        for metric in ("accuracy", "nll"):
            assert np.average(rows[metric].fillna(0), weights=rows["pixels"]) == pytest.approx(
                intervals.loc[(name, metric), "value"], abs=2e-4
            )


def test_full_refuses_the_photo_patches(made_up_colors):
    for study in (studies.color_search, studies.color_models):
        with pytest.raises(runs.RunError, match="only bundled photo patches was found"):
            study("full", 0, made_up_colors(SPLITS, source=PATCH_SOURCE))
        with pytest.raises(ValueError, match="profile"):
            study("fast", 0, made_up_colors(SPLITS))


def test_captions_warn_of_patches(study, monkeypatch):
    patches = study.results().assign(data_source=PATCH_SOURCE)
    monkeypatch.setattr(type(study), "results", lambda self: patches)
    assert study.caption().startswith("PHOTO PATCHES")


def test_pictures_of_the_mirror_hold_the_test_images(study):
    spec = study.specs[-1]
    objective, _ = spec.config.build(study.data, 0)
    figure = objective.pictures({}, study.network(spec), study.data)["colorized"]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["grey", "truth", "truth in palette", "most likely", "annealed mean"]
    truth = figure.axes[1].get_images()[0].get_array()
    assert np.array_equal(truth, study.data.test.images[0].permute(1, 2, 0).numpy())


def test_own_pictures_keep_their_luminance(study, tmp_path):
    pixels = study.data.test.images[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((50, 40)).save(tmp_path / "own.png")
    painted = palette.color_picture(study.best_network(), tmp_path / "own.png")
    assert painted.shape == (3, 40, 50)


def test_the_report_network_is_the_one_of_its_best_run():
    assert studies.REPORT_CNN is CONFIGS["run 10"]
    assert (
        studies.REPORT_CNN.epochs,
        studies.REPORT_CNN.num_colors,
        studies.REPORT_CNN.mirror,
    ) == (30, 24, False)
