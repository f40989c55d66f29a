"""Shapes, names, and what networks say of themselves."""

import pytest
import torch
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.models import MODELS, make_model
from fedmeta.models.network import BatchStatistics
from fedmeta.params import trainable_parameters
from server.configuration import load

torch.set_num_threads(1)


@pytest.mark.parametrize("normalisation", ["batch", "group", "none"])
@pytest.mark.parametrize("ways", [None, 1, 5])
@pytest.mark.parametrize("name", ["conv4", "mlp"])
def test_outputs(name, ways, normalisation):
    net = make_model(name, ways=ways, normalisation=normalisation)
    features = {"conv4": 256, "mlp": 64}[name]
    for count in (1, 3):
        output = net(torch.randn(count, 1, 28, 28))
        assert output.shape == (count, features if ways is None else ways)
        assert torch.isfinite(output).all()
    assert net.transductive == (normalisation == "batch")
    assert any(key.startswith("head.") for key in trainable_parameters(net)) == (ways is not None)


@pytest.mark.parametrize("normalisation", ["group", "none"])
def test_without_batch_statistics_examples_do_not_meet(normalisation):
    net, x = make_model("conv4", filters=8, normalisation=normalisation, ways=3), torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


def test_other_inputs():
    assert make_model("conv4", input_shape=(3, 33, 17), filters=8, ways=2)(torch.randn(2, 3, 33, 17)).shape == (2, 2)
    assert make_model("sinusoid")(torch.randn(7, 1)).shape == (7, 1)
    with pytest.raises(ConfigurationError, match=r"channels, height, width"):
        make_model("conv4", input_shape=(784,))


def test_paper_sizes():
    sizes = {name: sum(p.numel() for p in make_model(name, ways=5).parameters()) for name in ("conv4", "mlp")}
    assert sizes == {
        "conv4": 576 + 3 * 36864 + 4 * 128 + 256 * 5 + 5,
        "mlp": 784 * 256 + 256 * 128 + 128 * 64 + 64 * 64 + 2 * 512 + 325,
    }


def test_groups_must_divide():
    for name, key, size in (("conv4", "filters", 12), ("text", "channels", 12), ("two_encoders", "filters", 4)):
        given = {key: size} if name == "two_encoders" else {key: size, "normalisation": "group"}
        with pytest.raises(
            ConfigurationError, match=rf"model\.groups = 8 does not divide model\.{key} = {size}: choose"
        ):
            make_model(name, **given)
    with pytest.raises(ConfigurationError, match=r"model\.hidden = \(16, 12\): choose a divisor of 12, or another"):
        load({"model": {"name": "mlp", "hidden": [16, 12], "normalisation": "group"}})
    assert make_model("conv4", filters=12, normalisation="none", ways=2) is not None, "groups have no effect here"


def test_settings_are_checked():
    with pytest.raises(ConfigurationError, match="did you mean 'filters'"):
        make_model("conv4", filter=3)
    with pytest.raises(ConfigurationError, match=r"normalisation.*'batch', 'group', 'none'"):
        make_model("conv4", normalisation="layer")


@pytest.mark.parametrize("name", list(MODELS.entries()))
def test_building_leaves_the_global_generator(name):
    state = torch.get_rng_state()
    make_model(name)
    assert torch.equal(state, torch.get_rng_state())


def test_batch_statistics():
    x = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    layer = BatchStatistics(4).double()
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-5).sqrt())
    assert list(layer.buffers()) == []


def test_batch_statistics_of_a_single_value():
    layer = BatchStatistics(4)
    nn.init.constant_(layer.bias, 0.5)
    assert torch.equal(layer(torch.randn(1, 4)), torch.full((1, 4), 0.5))
    assert torch.equal(layer(torch.randn(1, 4, 1, 1)), torch.full((1, 4, 1, 1), 0.5))
