import math
from dataclasses import replace

import pytest
import torch

from smai_lib.colorization.baselines import ceiling, measured_baselines
from smai_lib.core.errors import ConfigError


def test_baselines_are_what_their_names_say(data, tables, metrics_of):
    train, test = data.train, data.test
    log_probs = tables["luminance and row table"](test.inputs(slice(None)))
    assert log_probs.exp().sum(1) == pytest.approx(torch.ones(10, 32, 32), abs=1e-5)
    metrics = {name: metrics_of(table, test) for name, table in tables.items()}
    majority = train.colors.flatten().bincount().argmax()
    expected = (test.colors == majority).float().mean().item()
    assert metrics["majority colour"]["accuracy"] == pytest.approx(expected)
    distance = test.grey.long().unsqueeze(1) - data.palette.view(1, 8, 3, 1, 1).long()
    centre = distance.square().sum(2).argmin(1)
    expected = (centre == test.colors).float().mean().item()
    nearest = metrics["nearest centre to the grey value"]
    assert nearest["accuracy"] == pytest.approx(expected)
    assert math.isfinite(nearest["nll"])
    level = int(test.grey.flatten()[7])
    counts = train.colors[train.grey[:, 0] == level].bincount(minlength=8) + 0.1
    row = tables["luminance table"].log_probs[0, level].exp()
    assert row == pytest.approx((counts / counts.sum()).numpy(), abs=0.05)
    by_row, by_level = metrics["luminance and row table"], metrics["luminance table"]
    assert by_row["accuracy"] > by_level["accuracy"] + 0.1
    assert by_row["nll"] < by_level["nll"] < metrics["majority colour"]["nll"]


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
