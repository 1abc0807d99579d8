import pytest
import torch

from smai_lib.colorization.model import ColorizationUNet
from smai_lib.colorization.objective import ColorizationObjective


@pytest.mark.parametrize("model", ["cnn_prior", "unet"])
def test_an_untrained_network_predicts_its_prior(data, config, tables, model):
    _, network = config(model=model).build(data, 0)
    names = {"cnn_prior": "luminance table", "unet": "luminance and row table"}
    prior = tables[names[model]]
    inputs = ColorizationObjective.inputs(data.test, slice(None))
    assert torch.equal(network.eval()(inputs), prior(inputs))


def test_the_reports_network_has_no_prior(data, config, tables):
    _, model = config(model="cnn").build(data, 0)
    assert model.prior is None
    level = torch.full((1, 1, 32, 32), 0.5)
    assert not torch.allclose(model.eval()(level), tables["luminance table"](level))


def test_unet_keeps_any_size_that_is_a_multiple_of_eight():
    network = ColorizationUNet(num_filters=2, num_colors=5, kernel_size=5).eval()
    assert network(torch.zeros(2, 1, 64, 40)).shape == (2, 5, 64, 40)
    with pytest.raises(ValueError, match="found 2, 5, 4"):
        ColorizationUNet(num_filters=2, num_colors=5, kernel_size=4)


def test_unet_sees_the_mirrored_image_alike():
    torch.manual_seed(0)
    network = ColorizationUNet(num_filters=2, num_colors=5).eval()
    torch.nn.init.normal_(network.classifier.weight)
    for unit in network.modules():
        if isinstance(unit, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            unit.weight.data = (unit.weight.data + unit.weight.data.flip(-1)) / 2
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(network(image.flip(-1)).flip(-1), network(image), atol=1e-5)
