import torch

from smai_lib.colorization.data import cifar10, prepare
from smai_lib.colorization.palette import SUPPLIED, fit_palette


def test_images_are_encoded_in_a_palette_fitted_to_the_training_images(tinted, data):
    assert torch.equal(data.palette, fit_palette(tinted.train.images, 8))
    assert torch.equal(data.test.images, tinted.test.images)
    mean = tinted.train.images.float().mean(1, keepdim=True)
    assert (data.train.grey - mean).abs().max() <= 0.5
    difference = tinted.validation.images[0].long() - data.palette.view(8, 3, 1, 1).long()
    nearest = difference.square().sum(1).argmin(0)
    assert torch.equal(data.validation.colors[0].long(), nearest)
    assert data.fingerprint != prepare(tinted, 7).fingerprint
    assert data.take(3, 2, 1).test.colors.shape == (1, 32, 32)


def test_cifar10_comes_in_the_supplied_colours(monkeypatch, tinted):
    monkeypatch.setattr("smai_lib.colorization.data.color_images", lambda *_, verbose: tinted)
    data = cifar10(verbose=False)
    assert torch.equal(data.palette, SUPPLIED)
    assert data.fingerprint == prepare(tinted, SUPPLIED).fingerprint
