import math
from dataclasses import replace

import pytest
import torch

from smai_lib.colorization.baselines import ceiling, measured_baselines
from smai_lib.core.errors import ConfigError


def test_the_majority_colour_and_the_nearest_centre_by_hand(data, tables, metrics_of):
    majority = data.train.colors.flatten().bincount().argmax()
    distance = data.test.grey.long().unsqueeze(1) - data.palette.view(1, 8, 3, 1, 1).long()
    predictions = {
        "majority colour": majority,
        "nearest centre to the grey value": distance.square().sum(2).argmin(1),
    }
    for name, predicted in predictions.items():
        metrics = metrics_of(tables[name], data.test)
        expected = (predicted == data.test.colors).float().mean().item()
        assert metrics["accuracy"] == pytest.approx(expected)
        assert math.isfinite(metrics["nll"])


def test_the_luminance_table_has_the_shares_of_the_colours_by_grey_level(data, tables):
    level = int(data.test.grey.flatten()[7])
    colors = data.train.colors[data.train.grey[:, 0] == level]
    shares = colors.bincount(minlength=8) / len(colors)
    probabilities = tables["luminance table"].log_probs[0, level].exp()
    assert probabilities.tolist() == pytest.approx(shares.tolist(), abs=0.05)
    assert probabilities.sum().item() == pytest.approx(1)


def test_rows_tell_the_colours_that_grey_levels_do_not(data, tables, metrics_of):
    by_row = metrics_of(tables["luminance and row table"], data.test)
    by_level = metrics_of(tables["luminance table"], data.test)
    assert by_row["accuracy"] > by_level["accuracy"] + 0.1
    assert by_row["nll"] < by_level["nll"]


def test_a_table_with_rows_refuses_images_of_another_height(tables):
    with pytest.raises(ConfigError, match="found height 64, but the table has 32 rows"):
        tables["luminance and row table"](torch.zeros(1, 1, 64, 64))
    assert tables["luminance table"](torch.zeros(1, 1, 64, 48)).shape == (1, 8, 64, 48)


def test_baselines_are_measured_on_both_splits(data, tables, metrics_of):
    measured = measured_baselines(data).set_index("name")
    row, table = measured.loc["luminance table"], tables["luminance table"]
    assert row["val_nll"] == pytest.approx(metrics_of(table, data.validation)["nll"], rel=1e-5)
    assert row["test_nll"] == pytest.approx(metrics_of(table, data.test)["nll"], rel=1e-5)


def test_the_ceiling_sees_what_the_patch_tells(made_up_colors):
    """The left neighbour alone tells the colour: patches of 1 pixel guess, of 3 pixels know."""
    generator = torch.Generator().manual_seed(0)
    data = made_up_colors((12, 2, 4), num_colors=2)

    def with_known_colors(split):
        grey = 100 + 50 * torch.randint(2, split.grey.shape, generator=generator, dtype=torch.uint8)
        left = torch.cat([grey[:, 0, :, 1:2], grey[:, 0, :, :-1]], 2)  # reflected at the border
        return split._replace(grey=grey, colors=(left > 100).byte())

    train, test = with_known_colors(data.train), with_known_colors(data.test)
    table = ceiling(replace(data, train=train, test=test))
    guess, known = table.to_dict("records")[:2]
    assert guess["agreement"] == pytest.approx(0.5, abs=0.08) and guess["distance"] == 0
    assert known == {"size": 3, "agreement": 1.0, "distance": 0.0, "ceiling": 1.0}
    # two colours, told apart with probability p: A = p^2 + (1 - p)^2, and the bound returns p
    agreement = guess["agreement"]
    assert guess["ceiling"] == pytest.approx((1 + max(0, 2 * agreement - 1) ** 0.5) / 2)
