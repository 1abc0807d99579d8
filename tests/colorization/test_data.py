import numpy as np
import torch

from smai_lib.colorization.data import cifar10, prepare
from smai_lib.colorization.palette import SUPPLIED, encode, fit_palette, grey_of


def test_images_are_encoded_in_a_palette_fitted_to_the_training_images(tinted, data):
    assert torch.equal(data.palette, fit_palette(tinted.train.images, 8))
    assert torch.equal(data.test.images, tinted.test.images)
    assert torch.equal(data.train.grey, grey_of(tinted.train.images))
    assert torch.equal(data.validation.colors, encode(tinted.validation.images, data.palette))
    assert data.fingerprint != prepare(tinted, 7).fingerprint


def test_a_number_of_colours_may_be_of_numpy(tinted, data):
    assert prepare(tinted, np.int64(8)).fingerprint == data.fingerprint


def test_cifar10_comes_in_the_supplied_colours(monkeypatch, tinted):
    monkeypatch.setattr("smai_lib.colorization.data.color_images", lambda *_, verbose: tinted)
    data = cifar10(verbose=False)
    assert torch.equal(data.palette, SUPPLIED)
    assert data.fingerprint == prepare(tinted, SUPPLIED).fingerprint
