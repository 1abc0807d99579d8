import math
from dataclasses import replace

import pytest
import torch

from smai_lib.colorization import tables as grey_tables
from smai_lib.colorization.objective import ColorizationObjective


def test_baselines_are_what_they_say(data, tables, metrics_of):
    for table in tables.values():
        log_probs = table(ColorizationObjective.inputs(data.test, slice(None)))
        assert log_probs.shape == (10, 8, 32, 32)
        assert log_probs.exp().sum(1) == pytest.approx(1, abs=1e-5)
    train, test = data.train, data.test
    majority = train.colors.flatten().bincount().argmax()
    found = {name: metrics_of(table, test) for name, table in tables.items()}
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


def test_a_table_refuses_images_of_another_height(tables):
    with pytest.raises(ValueError, match="has 32 rows, expected 64"):
        tables["luminance and row table"](torch.zeros(1, 1, 64, 64))
    assert tables["luminance table"](torch.zeros(1, 1, 64, 48)).shape == (1, 8, 64, 48)


def test_the_ceiling_sees_what_the_patch_tells(made_up_colors):
    """A pixel's colour is told by its left neighbour alone: a patch of one pixel guesses, one of three knows."""
    generator = torch.Generator().manual_seed(0)
    data = made_up_colors((12, 2, 4), num_colors=2)

    def made(split):
        grey = 100 + 50 * torch.randint(2, split.grey.shape, generator=generator, dtype=torch.uint8)
        left = torch.cat([grey[:, 0, :, 1:2], grey[:, 0, :, :-1]], 2)  # reflected at the border
        return split._replace(grey=grey, colors=(left > 100).byte())

    table = grey_tables.ceiling(
        replace(data, train=made(data.train), test=made(data.test)), sizes=(1, 3), queries=500
    )
    guess, known = table.to_dict("records")
    assert guess["agreement"] == pytest.approx(0.5, abs=0.08) and guess["distance"] == 0
    assert known == {"size": 3, "agreement": 1.0, "distance": 0.0, "ceiling": 1.0}
    # two colours, told apart with probability p: A = p^2 + (1 - p)^2, and the bound returns p
    agreement = guess["agreement"]
    assert guess["ceiling"] == pytest.approx((1 + max(0, 2 * agreement - 1) ** 0.5) / 2)
