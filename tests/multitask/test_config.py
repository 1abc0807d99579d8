import pytest
import torch
from safetensors.torch import save_file

from smai_lib.core.errors import ConfigError, IntegrityError
from smai_lib.multitask.config import MultiTaskConfig


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lambda1": -1.0}, "lambda1.*found -1.0"),
        ({"lambda1": 0.0, "lambda2": 0.0}, "found 0 for both"),
        ({"num_layers": 4}, "num_layers.*found 4"),
        ({"base_filters": 100_000}, "base_filters.*found 100000"),  # 720 GB of weights
        ({"hidden": 10**9}, "hidden.*found 1000000000"),
        ({"backbone": "residual", "pairs": 10**6}, "pairs.*found 1000000"),
        ({"pairs": 2}, "pairs.*found 2, .*backbone 'plain' has no pairs"),
        ({"rotation": 181.0}, "rotation.*found 181"),
        ({"ink_target": "original"}, "ink_target.*without shift and rotation no ink leaves"),
    ],
)
def test_a_bad_value_is_refused_by_its_key(values, message):
    with pytest.raises(ConfigError, match=message):
        MultiTaskConfig(**values)


def test_images_of_the_same_ink_cannot_be_z_scored(sample, small):
    with pytest.raises(ConfigError, match="ink_scaling.*same ink; use 'raw', or more images"):
        small(ink_scaling="z_score").build(sample.take(1), 0)


@pytest.mark.parametrize("moves", [{"shift": 2}, {"rotation": 10.0}])
def test_only_a_stale_ink_target_warns(tiny, small, moves, recwarn):
    small(**moves).build(tiny, 0)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="'ink_target': found 'original' .* the target is stale"):
        small(ink_target="original", **moves).build(tiny, 0)


def test_saved_weights_include_the_scale_of_ink(tmp_path, tiny, small):
    config = small(ink_scaling="z_score", hidden=7, ceil_mode=True)
    model = config.build(tiny, 0)[1].eval()
    file = tmp_path / "network.safetensors"
    save_file(model.state_dict(), file)
    images = torch.rand(4, 1, 28, 28)
    loaded = config.load_model(file)
    torch.testing.assert_close(loaded(images)[:2], model(images)[:2])
    with pytest.raises(IntegrityError, match="does not fit .*ink_scale"):
        config.replace(ink_scaling="raw").load_model(file)
