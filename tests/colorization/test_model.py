import pytest
import torch

from smai_lib.colorization.model import ColorizationUNet


@pytest.mark.parametrize(
    "model, prior",
    [("cnn_prior", "luminance table"), ("unet", "luminance and row table")],
)
def test_an_untrained_network_predicts_its_prior(data, config, tables, model, prior):
    _, network = config(model=model).build(data, 0)
    inputs = data.test.inputs(slice(None))
    assert torch.equal(network.eval()(inputs), tables[prior](inputs))


def test_an_untrained_unet_without_prior_predicts_every_colour_alike(data, config):
    _, network = config(model="unet_no_prior").build(data, 0)
    assert network.eval()(data.test.inputs(slice(None))).count_nonzero() == 0


def test_unet_keeps_any_size_that_is_a_multiple_of_eight():
    network = ColorizationUNet(num_filters=2, num_colors=5, kernel_size=5).eval()
    assert network(torch.zeros(2, 1, 64, 40)).shape == (2, 5, 64, 40)


def test_unet_sees_the_mirrored_image_alike():
    torch.manual_seed(0)
    network = ColorizationUNet(num_filters=2, num_colors=5).eval()
    torch.nn.init.normal_(network.classifier.weight)
    for unit in network.modules():
        if isinstance(unit, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            unit.weight.data = (unit.weight.data + unit.weight.data.flip(-1)) / 2
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(network(image.flip(-1)).flip(-1), network(image), atol=1e-5)


def test_the_class_head_is_used_in_training_only_and_changes_no_other_weight(data, config):
    _, plain = config(model="unet").build(data, 0)
    _, auxiliary = config(model="unet", class_weight=0.1).build(data, 0)
    state = auxiliary.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    inputs = data.test.inputs(slice(None))
    logits, _ = auxiliary.train()(inputs)
    assert torch.equal(logits, plain.train()(inputs))
    assert torch.is_tensor(auxiliary.eval()(inputs))
