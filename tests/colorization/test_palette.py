import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from smai_lib.colorization import palette as palettes
from smai_lib.colorization.palette import (
    SUPPLIED,
    PaletteError,
    check_palette,
    color_picture,
    decode,
    encode,
    expected_rgb,
    fit_palette,
    grey_of,
)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_grey_is_the_rounded_mean():
    rgb = torch.tensor([[0, 0, 1], [0, 1, 1], [255, 255, 255], [200, 100, 0]], dtype=torch.uint8)
    assert grey_of(rgb.view(4, 3, 1, 1)).flatten().tolist() == [0, 1, 255, 100]


def test_palette_is_seeded_and_goes_from_dark_to_light(images):
    palette = fit_palette(images, 24)
    assert palette.shape == (24, 3) and palette.dtype == torch.uint8
    sums = palette.sum(1, dtype=torch.int32)
    assert (sums.diff() >= 0).all()
    assert torch.equal(palette, fit_palette(images, 24))
    assert not torch.equal(palette, fit_palette(images, 24, seed=1))


def test_kmeans_finds_the_colours_that_there_are():
    truth = torch.tensor([[250, 250, 250], [10, 20, 30], [200, 30, 30], [0, 90, 250]]).byte()
    colors = torch.arange(4).repeat(256).view(1, 32, 32)
    palette = fit_palette(decode(colors, truth), 4)
    assert palette.tolist() == [[10, 20, 30], [200, 30, 30], [0, 90, 250], [250, 250, 250]]


@pytest.mark.parametrize("num_colors", [2, 24, 256])
def test_encode_is_the_exact_nearest_centre(images, num_colors, monkeypatch):
    palette = fit_palette(images, num_colors)
    distance = (images.long().unsqueeze(1) - palette.long().view(1, -1, 3, 1, 1)).square().sum(2)
    expected = distance.numpy().argmin(1)  # the first of equals
    assert np.array_equal(encode(images, palette).numpy(), expected)
    for block in ("BLOCK_IMAGES", "BLOCK_COLORS"):
        monkeypatch.setattr(palettes, block, 1 if block == "BLOCK_IMAGES" else 100)  # in many parts
    assert np.array_equal(encode(images, palette).numpy(), expected)


def test_encode_gives_ties_to_the_darker():
    palette = torch.tensor([[10, 10, 10], [20, 20, 20]], dtype=torch.uint8)
    assert encode(torch.full((1, 3, 2, 2), 15, dtype=torch.uint8), palette).eq(0).all()


def test_encode_holds_few_distances_at_once(images, monkeypatch):
    monkeypatch.setattr(palettes, "BLOCK_COLORS", 1000)
    largest = 0
    multiply = torch.Tensor.__matmul__

    def watched(a, b):
        nonlocal largest
        largest = max(largest, len(a) * b.shape[1])
        return multiply(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    encode(images, fit_palette(images, 24))
    assert 0 < largest <= 1000 * 24


def test_the_supplied_palette_encodes_and_decodes(images):
    """To the nearest centre by exact integers, thousandths and all; each centre, rounded, is its own colour."""
    thousandths = (SUPPLIED.double() * 1000).round().long()
    distance = (
        (1000 * images.long().unsqueeze(1) - thousandths.view(1, -1, 3, 1, 1)).square().sum(2)
    )
    assert np.array_equal(encode(images, SUPPLIED).numpy(), distance.numpy().argmin(1))
    colors = torch.arange(24).view(1, 4, 6)
    decoded = decode(colors, SUPPLIED)
    assert (
        decoded.float().squeeze(0).flatten(1).T - SUPPLIED
    ).abs().max() <= 0.5 and decoded.dtype == torch.uint8
    assert torch.equal(encode(decoded, SUPPLIED).long(), colors)


@pytest.mark.parametrize(
    "palette, found",
    [
        (torch.zeros(1, 3), "shape"),
        (torch.zeros(24, 4), "shape"),
        (torch.zeros(3), "shape"),
        (torch.full((24, 3), 256.0), "values"),
        (torch.full((24, 3), -1.0), "values"),
        (torch.full((24, 3), float("nan")), "values"),
    ],
)
def test_what_is_no_palette_is_refused(palette, found):
    with pytest.raises(PaletteError, match=f"palette: found {found}"):
        check_palette(palette)


def test_encoding_inverts_decoding(images):
    palette = fit_palette(images, 24)
    colors = torch.arange(1024).remainder(24).view(1, 32, 32)
    assert torch.equal(encode(decode(colors, palette), palette), colors.byte())


def test_round_trip_error_falls_with_more_colours(images):
    errors = [palettes.round_trip_error(images, fit_palette(images, n)) for n in (2, 24, 256)]
    assert errors[0] > errors[1] > errors[2] > 0
    two = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    flat = torch.full((1, 3, 4, 4), 3, dtype=torch.uint8)
    assert palettes.round_trip_error(flat, two) == pytest.approx(3)


@pytest.mark.parametrize("num_colors", [1, 257])
def test_number_of_colours_is_checked(images, num_colors):
    with pytest.raises(PaletteError, match=f"found {num_colors}, expected 2 to 256"):
        fit_palette(images, num_colors)


def test_more_colours_than_the_images_have():
    flat = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    flat[1, 1] = 200
    with pytest.raises(PaletteError, match="found 3, expected at most 2, the number of distinct"):
        fit_palette(flat, 3)


def test_temperature_goes_from_the_mean_to_the_most_likely():
    palette = torch.tensor([[0, 0, 0], [100, 200, 50]], dtype=torch.uint8)
    log_probs = torch.tensor([0.4, 0.6]).log().view(1, 2, 1, 1)
    assert expected_rgb(log_probs, palette, 1).flatten().tolist() == pytest.approx([60, 120, 30])
    cold = expected_rgb(log_probs, palette, 0.01).flatten().tolist()
    assert cold == pytest.approx([100, 200, 50], abs=1e-3)
    with pytest.raises(ValueError, match="temperature: found 0"):
        expected_rgb(log_probs, palette, 0)


def test_the_known_grey_is_kept(images):
    grey = grey_of(images)
    shifted = palettes.keep_grey(images.flip(0), grey)
    assert (shifted.mean(1, keepdim=True) - grey).abs().max() < 1
    assert shifted.min() >= 0 and shifted.max() <= 255
    # a colour whose mean is right already stays, but for the rounding of grey
    assert (palettes.keep_grey(images, grey) - images.float()).abs().max() < 1


def test_the_palette_does_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            found.append(fit_palette(images, 24))
    assert all(torch.equal(palette, found[0]) for palette in found)


def test_any_picture_is_coloured_at_its_own_resolution(data, config, tmp_path):
    _, model = config(model="unet").build(data, 0)
    grey = np.linspace(40, 230, 50 * 70).astype(np.uint8).reshape(50, 70)
    Image.fromarray(grey).save(tmp_path / "old.png")
    colored = color_picture(model.eval(), tmp_path / "old.png")
    assert colored.shape == (3, 50, 70) and colored.dtype == torch.uint8
    assert (colored.float().mean(0) - torch.from_numpy(grey)).abs().max() <= 1
    assert colored.float().std(0).max() > 3
