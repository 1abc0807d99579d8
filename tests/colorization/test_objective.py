import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from smai_lib.colorization import data as color_data
from smai_lib.colorization import metrics as color_metrics
from smai_lib.colorization import objective as colorization
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import ColorSplit
from smai_lib.colorization.images import ColorImages, Photos
from smai_lib.colorization.model import ColorizationUNet, Colorizer
from smai_lib.colorization.objective import ColorizationObjective
from smai_lib.colorization.palette import PaletteError, color_picture, decode, fit_palette
from smai_lib.colorization.tables import GreyTable, baselines
from smai_lib.core import runs, weights
from smai_lib.core.config import ConfigError
from smai_lib.core.training import choose_precision, evaluate, fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    """Blue above green, each of every brightness: the row tells them apart, luminance cannot."""
    generator = torch.Generator().manual_seed(0)
    light = torch.randint(40, 250, (60, 1, 32, 32), generator=generator)
    tint = torch.zeros(60, 3, 32, 32, dtype=torch.long)
    tint[:, 2, :16] = tint[:, 1, 16:] = 30
    pixels = (light + tint - 10).clamp(0, 255).byte()
    return ColorImages(Photos(pixels[:40]), Photos(pixels[40:50]), Photos(pixels[50:]), "made up", None, "f" * 64, "all")


@pytest.fixture(scope="module")
def data(images):
    return color_data.prepare(images, 8)


def config(**keys):
    return ColorizationConfig(num_colors=8, num_filters=4, kernel_size=3, epochs=1, **keys)


def baseline(data, name):
    return baselines(data)[name]


def metrics_of(model, data, split):
    """What `training.evaluate` makes of a module that has no parameters to tell its device."""
    objective = ColorizationObjective(config())
    logits = model(objective.inputs(split, slice(None)))
    return objective.metrics(objective.loss(logits, split, slice(None))[1])


def test_prepared_data(images, data):
    assert torch.equal(data.palette, fit_palette(images.train.images, 8))
    assert torch.equal(data.test.images, images.test.images)
    mean = images.train.images.float().mean(1, keepdim=True)
    assert (data.train.grey - mean).abs().max() <= 0.5
    nearest = (images.validation.images[0].long() - data.palette.view(8, 3, 1, 1).long()).square().sum(1)
    assert torch.equal(data.validation.colors[0].long(), nearest.argmin(0))
    # the palette is part of what the data are
    assert data.fingerprint != color_data.prepare(images, 7).fingerprint
    assert data.subset(3, 2, 1).test.colors.shape == (1, 32, 32)
    assert data.subset(3, 2, 1).fingerprint != data.fingerprint


def test_objective_against_a_loop(data):
    objective = ColorizationObjective(config())
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(10, 8, 32, 32, generator=generator)
    total = 0
    for part in (slice(0, 7), slice(7, 10)):  # batches of unequal size
        loss, sums = objective.loss(logits[part], data.validation, part)
        total = total + sums
    found = objective.metrics(total)
    truth = data.validation.colors.numpy()
    probs = logits.softmax(1).numpy()
    right, nll, recall = [], [], {color: [] for color in range(8)}
    for i, y, x in np.ndindex(truth.shape):
        p, color = probs[i, :, y, x], truth[i, y, x]
        right.append(p.argmax() == color)
        nll.append(-math.log(p[color]))
        recall[int(color)].append(right[-1])
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["nll"] == found["loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    expected = np.mean([np.mean(values) for values in recall.values()])
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert loss.item() == pytest.approx(np.mean(nll[7 * 1024 :]), rel=1e-5)


def test_mirroring_moves_grey_and_colours_together(data):
    objective = ColorizationObjective(config(mirror=True))
    torch.manual_seed(1)
    augmented = objective.augment(data.train)
    mirrored = (augmented.images == data.train.images.flip(-1)).flatten(1).all(1)
    assert 5 < mirrored.sum() < 35
    for before, after in zip(data.train, augmented, strict=True):
        assert torch.equal(after[mirrored], before[mirrored].flip(-1))
        assert torch.equal(after[~mirrored], before[~mirrored])
    assert ColorizationObjective(config()).augment(data.train) is data.train


def test_baselines_are_what_they_say(data):
    tables = baselines(data)
    for table in tables.values():
        log_probs = table(ColorizationObjective.inputs(data.test, slice(None)))
        assert log_probs.shape == (10, 8, 32, 32)
        assert log_probs.exp().sum(1) == pytest.approx(1, abs=1e-5)
    train, test = data.train, data.test
    majority = train.colors.flatten().bincount().argmax()
    found = {name: metrics_of(table, data, test) for name, table in tables.items()}
    expected = (test.colors == majority).float().mean().item()
    assert found["majority colour"]["accuracy"] == pytest.approx(expected)
    assert found["majority colour"]["balanced_accuracy"] == pytest.approx(1 / 8)
    distance = test.grey.long().unsqueeze(1) - data.palette.view(1, 8, 3, 1, 1).long()
    centre = distance.square().sum(2).argmin(1)
    expected = (centre == test.colors).float().mean().item()
    nearest = found["nearest centre to the grey value"]
    assert nearest["accuracy"] == pytest.approx(expected)
    assert math.isfinite(nearest["nll"])
    level = int(test.grey.flatten()[7])
    counts = train.colors[train.grey[:, 0] == level].bincount(minlength=8)
    row = tables["luminance table"].log_probs[0, level].exp()
    assert row == pytest.approx(((counts + 0.1) / (counts + 0.1).sum()).numpy(), abs=0.05)
    known = found["luminance and row table"]["accuracy"] - found["luminance table"]["accuracy"]
    assert known > 0.1
    losses = [values["nll"] for values in found.values()]
    assert losses[3] < losses[2] < losses[0]


def test_a_table_refuses_images_of_another_height(data):
    with pytest.raises(ValueError, match="has 32 rows, expected 64"):
        baseline(data, "luminance and row table")(torch.zeros(1, 1, 64, 64))
    assert baseline(data, "luminance table")(torch.zeros(1, 1, 64, 48)).shape == (1, 8, 64, 48)


@pytest.mark.parametrize("model", ["cnn_prior", "unet"])
def test_an_untrained_network_predicts_its_prior(data, model):
    _, network = config(model=model).build(data, 0)
    names = {"cnn_prior": "luminance table", "unet": "luminance and row table"}
    prior = baseline(data, names[model])
    inputs = ColorizationObjective.inputs(data.test, slice(None))
    assert torch.equal(network.eval()(inputs), prior(inputs))


def test_the_reports_network_has_no_prior(data):
    _, model = config(model="cnn").build(data, 0)
    assert model.prior is None
    level = torch.full((1, 1, 32, 32), 0.5)
    assert not torch.allclose(model.eval()(level), baseline(data, "luminance table")(level))


@pytest.mark.parametrize("model", ["cnn", "cnn_prior", "unet"])
def test_loss_falls_on_one_batch_and_every_weight_learns(data, model):
    objective, network = config(model=model).build(data, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    few, losses = slice(0, 8), []
    for _ in range(30):
        loss = objective.loss(network(objective.inputs(data.train, few)), data.train, few)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in network.parameters())


def test_fit_beats_the_table_where_the_place_tells(data):
    choice = config(model="unet", batch_size=4, learning_rate=1e-2)
    objective, network = choice.build(data, 0)
    fitted = fit(network, objective, data.train, data.validation, choice, seed=0, device="cpu")
    table = metrics_of(baseline(data, "luminance table"), data, data.validation)
    assert fitted.rows[-1]["val_nll"] < table["nll"]
    again = evaluate(network, objective, data.validation, precision=choose_precision("auto", CPU))
    assert fitted.rows[-1]["val_accuracy"] == again["accuracy"]


def test_unet_keeps_any_size_that_is_a_multiple_of_eight():
    network = ColorizationUNet(num_filters=2, num_colors=5, kernel_size=5).eval()
    assert network(torch.zeros(2, 1, 64, 40)).shape == (2, 5, 64, 40)
    with pytest.raises(ValueError, match="found 2, 5, 4"):
        ColorizationUNet(num_filters=2, num_colors=5, kernel_size=4)


def test_unet_sees_the_mirrored_image_alike():
    torch.manual_seed(0)
    network = ColorizationUNet(num_filters=2, num_colors=5).eval()
    torch.nn.init.normal_(network.classifier.weight)
    for unit in network.modules():
        if isinstance(unit, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            unit.weight.data = (unit.weight.data + unit.weight.data.flip(-1)) / 2
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(network(image.flip(-1)).flip(-1), network(image), atol=1e-5)


def test_weights_come_back_with_palette_and_prior(data, tmp_path):
    choice = config(model="unet")
    _, model = choice.build(data, 0)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.classifier.weight)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    again = choice.load(file)
    inputs = ColorizationObjective.inputs(data.test, slice(None))
    assert torch.equal(again(inputs), model.eval()(inputs))
    assert torch.equal(again.palette, data.palette)
    with pytest.raises(weights.WeightsError, match=r"palette: found \(8, 3\), expected \(9, 3\)"):
        dataclasses.replace(choice, num_colors=9).load(file)
    with pytest.raises(weights.WeightsError, match=r"does not fit.*classifier.weight: found \(8, 4, 1, 1\), expected \(8, 5, 1, 1\)"):
        dataclasses.replace(choice, num_filters=5).load(file)
    save_file({"classifier.bias": torch.zeros(3)}, file)
    with pytest.raises(weights.WeightsError, match=r"palette: found nothing|classifier.bias: found \(3,\), expected nothing"):
        choice.load(file)
    weights.record(file)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(weights.WeightsError, match="truncated or altered.*expected"):
        choice.load(file)
    with pytest.raises(weights.WeightsError, match="missing"):
        choice.load(tmp_path / "none.safetensors")


def test_build_checks_data_and_kernel(data):
    with pytest.raises(PaletteError, match="has 8 colours, expected the config's 9"):
        dataclasses.replace(config(), num_colors=9).build(data, 0)
    with pytest.raises(ValueError, match="kernel_size: found 33, expected at most 32"):
        dataclasses.replace(config(), kernel_size=33).build(data, 0)


@pytest.mark.parametrize("key, value", [
    ("model", "resnet"), ("kernel_size", 4), ("kernel_size", -1), ("num_colors", 257),
    ("num_filters", 0), ("dropout_rate", 1.0), ("schedule", "step"), ("mirror", 1),
])
def test_config_refuses(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*found {value!r}"):
        ColorizationConfig(**{"model": "unet"} | {key: value})
    with pytest.raises(ConfigError, match="has no dropout"):
        ColorizationConfig(model="cnn", dropout_rate=0.1)


def test_one_cycle_rises_then_falls():
    choice = config(schedule="one_cycle", learning_rate=0.01)
    rates = [choice.learning_rate_at(progress / 100) for progress in range(101)]
    assert rates[0] == pytest.approx(0.0004) and rates[100] == pytest.approx(1e-7)
    assert choice.learning_rate_at(0.125) == pytest.approx(0.0052)  # half way up
    assert max(rates) == rates[25] == pytest.approx(0.01)
    assert rates[:26] == sorted(rates[:26]) and rates[25:] == sorted(rates[25:], reverse=True)
    assert config().learning_rate_at(0.7) == 1e-3


def test_psnr_and_colorfulness_by_hand():
    image = torch.zeros(2, 3, 8, 8)
    assert color_metrics.psnr(image + 16, image).tolist() == pytest.approx([24.0484] * 2, abs=1e-4)
    assert color_metrics.psnr(image, image)[0].item() == pytest.approx(10 * math.log10(12 * 255**2))
    image[1, 0, :4] = 100  # half red: rg is 100 or 0, yb is 50 or 0
    spread, mean = math.hypot(50, 25), math.hypot(50, 25)
    expected = [0, spread + 0.3 * mean]
    assert color_metrics.colorfulness(image).tolist() == pytest.approx(expected)


def test_scores_agree_with_the_objective(data):
    table = baseline(data, "luminance table")
    scores = color_metrics.score(table, data.test, data.palette)
    found = scores.metrics().iloc[0]
    expected = metrics_of(table, data, data.test)
    for name in ("accuracy", "nll", "balanced_accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    guess = table.log_probs[0].argmax(1)[data.test.grey[:, 0].long()]
    psnr = color_metrics.psnr(decode(guess, data.palette), data.test.images)
    assert scores.means["psnr"] == pytest.approx(psnr.numpy(), rel=1e-5)
    # the grey value is known, so an answer that keeps it is nearer to the truth
    assert found["psnr_grey"] > found["psnr_mean"] > found["psnr"]
    blocks = color_metrics.score(table, ColorSplit(*(x[3:5] for x in data.test)), data.palette)
    assert blocks.means["nll"] == pytest.approx(scores.means["nll"][3:5])


def test_scoring_in_blocks_changes_nothing(data, monkeypatch):
    table = baseline(data, "luminance and row table")
    whole = color_metrics.score(table, data.test, data.palette).metrics()
    monkeypatch.setattr(color_metrics, "SCORED_PIXELS", 3 * 1024)
    blocks = color_metrics.score(table, data.test, data.palette).metrics()
    assert np.allclose(whole, blocks)


def test_calibration_error_by_hand():
    """One of two colours always foretold with 0.8, right three times in four."""
    palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    table = GreyTable(torch.tensor([0.2, 0.8]).log().expand(1, 256, 2).contiguous())
    colors = torch.ones(1, 4, 4, dtype=torch.uint8)
    colors[0, 0] = 0
    images = decode(colors, palette)
    split = ColorSplit(images, images[:, :1], colors)
    metrics = color_metrics.score(table, split, palette).metrics().iloc[0]
    assert metrics["ece"] == pytest.approx(0.05, abs=1e-6)
    assert metrics["accuracy"] == 0.75 and metrics["balanced_accuracy"] == 0.5
    assert metrics["nll"] == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.2))


def test_mirror_averaging(data):
    table = baseline(data, "luminance and row table")
    plain = color_metrics.score(table, data.test, data.palette).metrics()
    # a table takes no notice of neighbours, so mirroring there and back changes nothing
    averaged = color_metrics.score(table, data.test, data.palette, mirror=True).metrics()
    assert np.allclose(plain, averaged, atol=1e-6)
    torch.manual_seed(0)
    network = Colorizer(ColorizationUNet(num_filters=2, num_colors=8), data.palette)
    torch.nn.init.normal_(network.network.classifier.weight)
    plain = color_metrics.score(network, data.test, data.palette).metrics()
    averaged = color_metrics.score(network, data.test, data.palette, mirror=True).metrics()
    assert averaged["nll"].item() < plain["nll"].item()  # a mean's loss is below the mean loss


def test_bootstrap_intervals(data):
    tables = baselines(data)
    low, high = (color_metrics.score(tables[name], data.test, data.palette)
                 for name in ("majority colour", "luminance table"))
    intervals = color_metrics.bootstrap(high, resamples=500)
    assert (intervals["low"] <= intervals["high"]).all()
    accuracy = intervals.loc["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    # of the mean of ten values, by the normal approximation
    half = 1.96 * high.means["accuracy"].std() / math.sqrt(10)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * half, rel=0.2)
    difference = color_metrics.paired(high, low, resamples=500)
    assert difference.loc["accuracy", "low"] > 0 > difference.loc["nll", "high"]
    same = color_metrics.paired(high, high, resamples=50)
    assert (same == 0).all(axis=None)
    with pytest.raises(ValueError, match="same images"):
        color_metrics.paired(high, color_metrics.score(tables["majority colour"], data.validation,
                                                       data.palette))


def test_balanced_accuracy_of_a_resample_counts_what_occurs():
    scores = color_metrics.Scores({}, np.array([[4.0, 0], [0, 4]]), np.array([[4.0, 0], [0, 1]]),
                                  np.zeros((2, 1, 2)))
    found = scores.metrics(np.array([[1.0, 1], [2, 0]]))["balanced_accuracy"].tolist()
    assert found == [(1 + 0.25) / 2, 1]


def test_any_picture_is_coloured_at_its_own_resolution(data, tmp_path):
    _, model = config(model="unet").build(data, 0)
    grey = np.linspace(40, 230, 50 * 70).astype(np.uint8).reshape(50, 70)
    Image.fromarray(grey).save(tmp_path / "old.png")
    colored = color_picture(model.eval(), tmp_path / "old.png")
    assert colored.shape == (3, 50, 70) and colored.dtype == torch.uint8
    assert (colored.float().mean(0) - torch.from_numpy(grey)).abs().max() <= 1
    assert colored.float().std(0).max() > 3


@pytest.mark.parametrize("model", ["cnn", "unet"])
def test_a_colorization_run_is_recorded_like_any_other(data, model, tmp_path):
    choice = dataclasses.replace(config(model=model, mirror=True, schedule="one_cycle"), epochs=2, batch_size=8)
    spec = runs.RunSpec("run", "test", choice, 0, data.fingerprint, tmp_path)
    metrics = runs.execute(spec, data)["metrics"]
    rates = spec.folder.history()["learning_rate"]
    # 40 images in batches of 8: the last of 5 steps an epoch is half of all steps, then all of them
    assert rates.tolist() == pytest.approx([choice.learning_rate_at(0.5), choice.learning_rate_at(1.0)])
    reloaded = choice.load(spec.folder.weights_file)
    again = color_metrics.score(reloaded, data.test, data.palette).metrics().iloc[0]
    assert metrics["test_accuracy"] == pytest.approx(again["accuracy"], rel=1e-5)
    assert metrics["test_nll"] == pytest.approx(again["nll"], rel=1e-5)


def test_a_mirrored_epoch_is_drawn_anew(data):
    objective = ColorizationObjective(config(mirror=True))
    torch.manual_seed(0)
    first, second = objective.augment(data.train), objective.augment(data.train)
    assert not torch.equal(first.images, second.images)
    flipped = (first.images != data.train.images).flatten(1).any(1)
    assert 0 < flipped.sum() < len(flipped)
    assert torch.equal(first.colors[flipped], data.train.colors[flipped].flip(-1))
    assert torch.equal(first.grey[flipped], data.train.grey[flipped].flip(-1))


def test_shift_moves_all_three_alike_and_reflects(data):
    split = data.validation
    down, right = torch.full((10,), 3), torch.full((10,), -2)
    moved = colorization.moved(split, down, right)
    for before, after in zip(split, moved, strict=True):
        assert torch.equal(after[..., 3:, :-2], before[..., :-3, 2:])  # what stays in the picture
        assert torch.equal(after[..., 0, :-2], before[..., 3, 2:])  # reflected: the border is not doubled
        assert torch.equal(after[..., 3:, -1], before[..., :-3, -3])
    still = colorization.moved(split, torch.zeros_like(down), torch.zeros_like(down))
    assert all(torch.equal(a, b) for a, b in zip(still, split, strict=True))


def test_shift_is_drawn_per_image_and_within_range(data):
    objective = ColorizationObjective(config(shift=2))
    torch.manual_seed(0)
    augmented = objective.augment(data.train)
    options = {}
    for down, right in np.ndindex(5, 5):
        moves = (torch.full((40,), down - 2), torch.full((40,), right - 2))
        same = (colorization.moved(data.train, *moves).grey == augmented.grey).flatten(1).all(1)
        options[down - 2, right - 2] = same
    assert torch.stack(list(options.values())).any(0).all()
    assert sum(same.any() for same in options.values()) > 10
    with pytest.raises(ConfigError, match="shift"):
        config(shift=17)
