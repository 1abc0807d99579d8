import pytest
import torch
from threadpoolctl import threadpool_limits

from smai_lib.colorization import palette as palettes
from smai_lib.colorization.palette import (
    SUPPLIED,
    check_palette,
    decode,
    encode,
    expected_rgb,
    fit_palette,
    grey_of,
    keep_grey,
)
from smai_lib.core.errors import ConfigError


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_grey_is_the_rounded_mean():
    rgb = torch.tensor([[0, 0, 1], [0, 1, 1], [255, 255, 255], [200, 100, 0]], dtype=torch.uint8)
    assert grey_of(rgb.view(4, 3, 1, 1)).flatten().tolist() == [0, 1, 255, 100]


@pytest.fixture(scope="module")
def fitted(images):
    return fit_palette(images, 24)


def test_a_fitted_palette_depends_on_its_seed(images, fitted):
    assert not torch.equal(fitted, fit_palette(images, 24, seed=1))


def test_a_fitted_palette_does_not_depend_on_the_number_of_threads(images, monkeypatch):
    monkeypatch.setattr(palettes, "STARTS", 1)
    images = images.repeat(10, 1, 1, 1) ^ torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    with threadpool_limits(1):
        fitted = fit_palette(images, 24)
    with threadpool_limits(3):
        assert torch.equal(fit_palette(images, 24), fitted)


def test_kmeans_finds_the_colours_of_the_images_from_dark_to_light():
    truth = torch.tensor([[10, 20, 30], [200, 30, 30], [0, 90, 250], [250, 250, 250]]).byte()
    colors = torch.arange(4).repeat(256).view(1, 32, 32)
    assert torch.equal(fit_palette(decode(colors, truth.flip(0)), 4), truth)


@pytest.mark.parametrize("num_colors", [2, 256])
def test_encoding_finds_the_nearest_colour_exactly(num_colors, images, monkeypatch):
    monkeypatch.setattr(palettes, "BLOCK_IMAGES", 1)
    monkeypatch.setattr(palettes, "BLOCK_COLORS", 100)
    generator = torch.Generator().manual_seed(0)
    thousandths = torch.randint(0, 255_000, (num_colors // 2, 3), generator=generator)
    thousandths = torch.cat([thousandths, thousandths + 1])  # twins, hard to tell apart
    distances = []
    for color in thousandths:
        distances.append((1000 * images.long() - color.view(3, 1, 1)).square().sum(1))
    encoded = encode(images, thousandths / 1000)
    assert torch.equal(encoded.long(), torch.stack(distances).argmin(0))


def test_ties_go_to_the_darker_colour():
    palette = torch.tensor([[10, 10, 10], [20, 20, 20]], dtype=torch.uint8)
    assert encode(torch.full((1, 3, 2, 2), 15, dtype=torch.uint8), palette).eq(0).all()


def test_encoding_inverts_decoding(fitted):
    for palette in (fitted, SUPPLIED):
        colors = torch.arange(24).view(1, 4, 6)
        decoded = decode(colors, palette)
        assert decoded.dtype == torch.uint8
        assert (decoded[0].float().flatten(1).T - palette).abs().max() <= 0.5
        assert torch.equal(encode(decoded, palette).long(), colors)


@pytest.mark.parametrize(
    "palette, found",
    [
        (torch.zeros(1, 3), "shape"),
        (torch.full((24, 3), 256.0), "values"),
        (torch.full((24, 3), float("nan")), "values"),
        (torch.full((24, 3), 10.0004), "values finer than thousandths"),
    ],
)
def test_what_is_no_palette_is_refused(palette, found):
    with pytest.raises(ConfigError, match=f"palette: found {found}"):
        check_palette(palette)


@pytest.mark.parametrize("num_colors, expected", [(257, "2 to 256"), (3, "at most 2: .*distinct")])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_an_impossible_number_of_colours_is_refused(num_colors, expected):
    two_colors = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    two_colors[1, 1] = 200
    with pytest.raises(ConfigError, match=f"found {num_colors}, expected {expected}"):
        fit_palette(two_colors, num_colors)


def test_temperature_goes_from_the_mean_to_the_likeliest_colour():
    palette = torch.tensor([[0, 0, 0], [100, 200, 50]], dtype=torch.uint8)
    log_probs = torch.tensor([0.4, 0.6]).log().view(1, 2, 1, 1)
    assert expected_rgb(log_probs, palette, 1).flatten().tolist() == pytest.approx([60, 120, 30])
    cold = expected_rgb(log_probs, palette, 0.01).flatten().tolist()
    assert cold == pytest.approx([100, 200, 50], abs=1e-3)


def test_the_known_grey_value_is_kept(images):
    grey = grey_of(images)
    shifted = keep_grey(images.flip(0), grey)
    assert (shifted.mean(1, keepdim=True) - grey).abs().max() < 1
    assert shifted.min() >= 0 and shifted.max() <= 255
    # a colour whose mean is right stays, except for the rounding of grey
    assert (keep_grey(images, grey) - images.float()).abs().max() < 1
