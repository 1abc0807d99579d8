import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from smai_lib.colorization import coloring
from smai_lib.colorization.coloring import color, color_picture, vivid_alpha, vivid_bias
from smai_lib.colorization.images import open_picture
from smai_lib.colorization.metrics import colorfulness
from smai_lib.colorization.studies import color_models
from smai_lib.core.errors import ConfigError, RunError
from tests.conftest import output_of


@pytest.fixture(scope="module")
def network():
    """The shipped network."""
    return color_models().best_network()


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """A picture of smooth colours, in the current folder."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).resize((50, 40)).save("in.png")
    return tmp_path / "in.png"


def test_a_picture_keeps_its_size_and_every_pixel_its_grey_value(picture):
    _, out, compared = color(picture, vividness=0.5)
    assert (out.name, compared.name) == ("in_colored.png", "in_colored_compared.png")
    colored, original = open_picture(out), open_picture(picture)
    assert (colored.float().mean(0) - original.float().mean(0)).abs().max() < 1


def test_a_vivid_picture_has_more_colour(picture, network):
    plain, vivid = (color_picture(network, picture, value).float() for value in (0.0, 1.0))
    assert colorfulness(vivid[None]).item() > 1.1 * colorfulness(plain[None]).item()


def test_strips_of_a_large_picture_change_nothing(picture, network, monkeypatch):
    whole = color_picture(network, picture)
    monkeypatch.setattr(coloring, "STRIP_PIXELS", 7 * 50)
    strips = color_picture(network, picture)
    assert (whole.int() - strips.int()).abs().max() <= 1  # float rounding of the interpolation
    assert (whole == strips).float().mean() > 0.999


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (3000, 10)])
def test_extreme_shapes_get_a_comparison_that_can_be_read(tmp_path, size):
    Image.new("RGB", size, (90, 120, 60)).save(tmp_path / "in.png")
    _, out, compared = color(tmp_path / "in.png", tmp_path / "out.jpg")
    assert Image.open(out).size == size
    width, height = Image.open(compared).size
    assert width == 1800 and 75 <= height <= 1900


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc, as on macOS")
def test_time_and_memory_of_a_large_picture_are_bounded(tmp_path):
    """The peak is read from /proc: that of `getrusage` begins with the peak of this process."""
    Image.new("RGB", (8000, 6000), (90, 120, 60)).save(tmp_path / "in.png")
    code = (
        "import time, smai_lib as smai; smai.color('in.png', 'out.png', 0.5);"
        "status = dict(line.split(':') for line in open('/proc/self/status'));"
        "print(time.process_time(), status['VmHWM'].split()[0])"
    )
    output = output_of(sys.executable, "-c", code, cwd=tmp_path)
    seconds, kilobytes = map(float, output.split()[-2:])
    assert seconds < 30 and kilobytes < 1.5e6


@pytest.mark.parametrize(
    "out, vividness",
    [
        ("sub/../a_compared.png", 0),
        ("a.png", 0),  # its comparison would overwrite the picture
        ("out.txt", 0),
        ("missing/out.png", 0),
        ("sub.png", 0),
        ("", 0),
        (".", 0),
        ("/", 0),
        ("out.png", float("nan")),
    ],
)
def test_a_bad_argument_is_refused_before_the_work(picture, monkeypatch, out, vividness):
    picture = picture.rename("a_compared.png")
    content = picture.read_bytes()
    for folder in ("sub", "sub.png"):
        Path(folder).mkdir()
    monkeypatch.setattr(coloring, "open_picture", None)
    with pytest.raises(ConfigError, match="^out: |^vividness: "):
        color(picture, out, vividness)
    assert picture.read_bytes() == content


@pytest.mark.parametrize("full", ["out.png", "out_compared.png"])
def test_a_full_disk_names_the_file_and_keeps_the_older_one(picture, monkeypatch, full):
    picture.with_name(full).write_text("older", encoding="utf-8")
    path_type = type(picture)
    replace = path_type.replace

    def fail(part, file):
        if file.name == full:
            raise OSError(28, "No space left on device")
        return replace(part, file)

    monkeypatch.setattr(path_type, "replace", fail)
    with pytest.raises(RunError, match=rf"cannot write {full} .*No space left"):
        color(picture, "out.png")
    assert picture.with_name(full).read_text(encoding="utf-8") == "older"
    assert not list(picture.parent.glob("*.part*"))


@pytest.mark.parametrize(
    "out, problem",
    [
        ("out.webp", "out.webp"),  # WebP has at most 16,383 pixels a side
        (f"{'x' * 240}.png", "x*_compared.png .*too long"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_fix(picture, out, problem):
    Image.new("RGB", (17000, 2)).save(picture)
    with pytest.raises(RunError, match=f"cannot write {problem}.*another file or format"):
        color(picture, out)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.rand(3, 40, 40),
        torch.zeros(40, 40, 3, dtype=torch.uint8),
        torch.zeros(1, 40, 40, dtype=torch.uint8),
        torch.zeros(2, 3, 40, 40, dtype=torch.uint8),
        torch.zeros(3, 40, 0, dtype=torch.uint8),
    ],
    ids=["floats", "channels last", "grey", "batch", "empty"],
)
def test_pixels_of_another_type_or_shape_are_refused(pixels, network):
    with pytest.raises(ConfigError, match=r"picture: found torch.*, expected \(3, H, W\) uint8"):
        color_picture(network, pixels)


def test_the_vivid_bias_by_hand():
    bias = vivid_bias(pd.DataFrame({"share": [0.8, 0.2]}), 0.5)
    assert bias.flatten().tolist() == pytest.approx([0.1115718, 0.8047190])


def test_vividness_one_is_the_colourfulness_of_the_truth_on_validation():
    rows = {"alpha": [0.0, 0.5, 1.0], "colorfulness": [20.0, 28.0, 36.0]}
    table = pd.DataFrame(rows).assign(split="validation", colorfulness_palette=30.0)
    test = table.assign(split="test", colorfulness_palette=20.0)
    table = pd.concat([test, table])
    assert [vivid_alpha(value, table) for value in (0.0, 0.4, 1.0)] == [0.0, 0.25, 0.625]


def test_vividness_is_for_the_supplied_colours_only(picture, config, data):
    _, other = config().build(data, 0)
    with pytest.raises(ConfigError, match="24 supplied colours only"):
        color_picture(other, picture, 0.5)
