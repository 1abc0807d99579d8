"""Colour grey images with a trained network, on request more vividly than is likeliest.

The likeliest colour of a pixel is mostly greyish, because greyish colours are frequent. Subtracting
alpha times the log-frequency of the colours from the logits makes rare colours likelier, at some
cost of accuracy (logit adjustment, Menon et al. 2021; Zhang, Isola and Efros 2016 rebalance the
loss instead). *Vividness* 1 is the alpha at which the likeliest colours are as colourful as true
images. The annealed mean, which pictures show, has about four fifths of that.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from ..core.errors import ConfigError, RunError
from ..core.plots import style
from ..core.study import read_table
from .data import ColorSplit
from .images import FORMATS, open_picture, to_image
from .model import Colorizer
from .palette import SUPPLIED, decode, expected_rgb, grey_of, keep_grey
from .patches import SIZE
from .plots import plot_colorizations

STRIP_PIXELS = 1 << 20  # of a large picture are coloured at once, which bounds the memory
PANEL_PIXELS = 480  # longest side of a picture in the comparison


def vivid_bias(frequency: pd.DataFrame, alpha: float) -> torch.Tensor:
    """Return the bias of the logits that makes rare colours likelier, (1, NC, 1, 1).

    Args:
        frequency: the study's table "frequency", the share of every colour in training.
        alpha: factor of the log-frequency, see `vivid_alpha`.
    """
    share = torch.tensor(frequency["share"].to_numpy())
    return -alpha * share.log().float().view(1, -1, 1, 1)


@torch.inference_mode()
def colorize(
    model: Colorizer,
    split: ColorSplit,
    bias: torch.Tensor | float = 0.0,
) -> dict[str, torch.Tensor]:
    """Return colourings of a split, (N, 3, H, W) uint8 each.

    Args:
        model: the trained network.
        split: N images.
        bias: added to the logits, (1, NC, 1, 1); see `vivid_bias`.

    Returns:
        "most likely": the likeliest colour of every pixel; "annealed mean": the mean of sharpened
        probabilities, with the pixel's known grey value.
    """
    log_probs = (model.eval()(split.inputs(slice(None))) + bias).log_softmax(1)
    mean = keep_grey(expected_rgb(log_probs, model.palette), split.grey)
    return {
        "most likely": decode(log_probs.argmax(1), model.palette),
        "annealed mean": mean.round().byte(),
    }


def vivid_alpha(vividness: float, table: pd.DataFrame | None = None) -> float:
    """Return alpha for a vividness from 0 to 1.

    At 1, the colourfulness of the likeliest colours on validation is that of the true images in
    the palette.

    Args:
        vividness: 0 to 1.
        table: the study's table "vividness", by default the recorded one.

    Raises:
        ConfigError: the vividness is outside 0 to 1.
    """
    if not 0 <= vividness <= 1:
        raise ConfigError(f"vividness: found {vividness}, expected 0 to 1")
    if not vividness:
        return 0.0
    table = read_table("q2_models_vividness.csv") if table is None else table
    rows = table[table["split"] == "validation"].sort_values("alpha")
    truth = rows["colorfulness_palette"].iloc[0]
    return vividness * float(np.interp(truth, rows["colorfulness"], rows["alpha"]))


@torch.inference_mode()
def color_picture(
    model: Colorizer, picture: str | os.PathLike | torch.Tensor, vividness: float = 0.0
) -> torch.Tensor:
    """Return a picture coloured at its own resolution, (3, H, W) uint8.

    The network sees the grey values of the whole picture, squeezed to 32 x 32 pixels. The colours
    that it predicts there are enlarged, and every pixel keeps its own grey value.

    Args:
        model: the trained network.
        picture: an image file, or (3, H, W) uint8.
        vividness: 0 to 1, see `vivid_alpha`.

    Raises:
        ImageError: the file cannot be read as a picture.
        ConfigError: the pixels have another type or shape, the vividness is outside 0 to 1, or the
            network has other colours than the 24 supplied ones and the vividness is not 0.
    """
    bias, alpha = 0.0, vivid_alpha(vividness)
    if alpha:
        if len(model.palette) != len(SUPPLIED):
            raise ConfigError(
                f"vividness: found {vividness}, but it is known for the {len(SUPPLIED)} supplied "
                f"colours only, and the network has {len(model.palette)}; use 0"
            )
        bias = vivid_bias(read_table("q2_models_frequency.csv"), alpha)
    if not isinstance(picture, torch.Tensor):
        picture = open_picture(picture)
    _check_pixels(picture)
    height, width = picture.shape[1:]
    rows = max(1, STRIP_PIXELS // width)  # of a strip
    grey = torch.cat([grey_of(strip[None]) for strip in picture.split(rows, 1)], 2)  # (1, 1, H, W)
    small = F.interpolate(grey.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True)
    log_probs = (model.eval()(small.clamp(0, 255).round().div(255)) + bias).log_softmax(1)
    rgb = expected_rgb(log_probs, model.palette)
    rgb = F.interpolate(rgb, size=(height, SIZE), mode="bicubic")  # enlarge one axis first
    colored = torch.empty_like(picture)
    parts = zip(colored.split(rows, 1), rgb.split(rows, 2), grey.split(rows, 2), strict=True)
    for part, colors, known in parts:
        colors = F.interpolate(colors, size=known.shape[2:], mode="bicubic")
        part.copy_(keep_grey(colors, known)[0].round())
    return colored


def _check_pixels(picture: torch.Tensor) -> None:
    """Check that pixels are (3, H, W) uint8; floats in [0, 1] would all be black.

    Raises:
        ConfigError: they are not.
    """
    shape = tuple(picture.shape)
    if picture.dtype != torch.uint8 or picture.ndim != 3 or shape[0] != 3 or 0 in shape:
        raise ConfigError(f"picture: found {picture.dtype} {shape}, expected (3, H, W) uint8")


def color(
    picture: str | os.PathLike,
    out: str | os.PathLike | None = None,
    vividness: float = 0.0,
) -> tuple[Figure, Path, Path]:
    """Colour a picture with the shipped network, and save it.

    Args:
        picture: an image file.
        out: file to write, by default NAME_colored.png in the current folder.
        vividness: 0 to 1, see `vivid_alpha`.

    Returns:
        A figure of the original, the grey and the coloured picture side by side; the file; and the
        file of that figure, beside it.

    Raises:
        ImageError: the picture cannot be read.
        ConfigError: `out`, or the comparison beside it, is the picture itself; `out` is no writable
            image file; or the vividness is outside 0 to 1.
        RunError: a file cannot be written; an older one of that name is left as it was.
    """
    from .studies import color_models

    picture = Path(picture)
    out = Path(f"{picture.stem}_colored.png" if out is None else out)
    compared = out.parent / f"{out.stem}_compared.png"
    _check_output(picture, out, compared)
    vivid_alpha(vividness)  # refuses a bad one before the picture is opened
    pixels = open_picture(picture)
    shown = _panel(pixels)
    colored = color_picture(color_models().best_network(), pixels, vividness)
    del pixels  # of a large picture, it is much memory
    panels = torch.stack([shown, grey_of(shown[None])[0].expand_as(shown), _panel(colored)])
    _save(out, to_image(colored).save)
    with style():
        figure = plot_colorizations({"": panels}, ["original", "grey", "coloured"], width=4)
        _save(compared, partial(figure.savefig, dpi=150))
    return figure, out, compared


def _save(file: Path, save: Callable[[Path], None]) -> None:
    """Replace a file by what `save` writes, in one step."""
    part = file.with_name(f"{file.stem}.part{file.suffix}")
    try:
        save(part)
        part.replace(file)
    except (OSError, ValueError) as error:  # ValueError: too large for the format
        with suppress(OSError):
            part.unlink()
        raise RunError(
            f"cannot write {file} ({error}); make room there, or choose another file or format"
        ) from error


def _check_output(picture: Path, out: Path, compared: Path) -> None:
    """Check the output files before the work.

    Raises:
        ConfigError: one is the input, `out` is no image file, or its folder is not writable.
    """
    for file in (out, compared):
        if file.exists() and picture.exists() and file.samefile(picture):
            raise ConfigError(f"out: {file} is the picture itself; choose another file")
    if Image.registered_extensions().get(out.suffix.lower()) not in (*FORMATS, "TIFF"):
        raise ConfigError(f"out: found {str(out)!r}, expected an image file such as NAME.png")
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ConfigError(f"out: cannot write {out}; choose a file in a folder you may write to")


def _panel(picture: torch.Tensor) -> torch.Tensor:
    """Return (3, h, w) uint8 whose longest side has at most PANEL_PIXELS."""
    scale = PANEL_PIXELS / max(picture.shape)
    if scale >= 1:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[1:]]
    return F.interpolate(picture[None], size=size, mode="bicubic", antialias=True)[0]
