import torch

from smai_lib.colorization.data import prepare
from smai_lib.colorization.palette import fit_palette


def test_prepared_data(tinted, data):
    assert torch.equal(data.palette, fit_palette(tinted.train.images, 8))
    assert torch.equal(data.test.images, tinted.test.images)
    mean = tinted.train.images.float().mean(1, keepdim=True)
    assert (data.train.grey - mean).abs().max() <= 0.5
    nearest = (
        (tinted.validation.images[0].long() - data.palette.view(8, 3, 1, 1).long()).square().sum(1)
    )
    assert torch.equal(data.validation.colors[0].long(), nearest.argmin(0))
    # the palette is part of what the data are
    assert data.fingerprint != prepare(tinted, 7).fingerprint
    assert data.subset(3, 2, 1).test.colors.shape == (1, 32, 32)
    assert data.subset(3, 2, 1).fingerprint != data.fingerprint
