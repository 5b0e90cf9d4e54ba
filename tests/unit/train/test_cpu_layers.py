"""The layers that train on a CPU compute what torch's own do, forward and backward."""

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from msnode.train.cpu_layers import replace_layers


@pytest.fixture
def network():
    torch.manual_seed(1)
    made = PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 6, 8],
        conv_op=torch.nn.Conv2d,
        kernel_sizes=[[3, 3]] * 3,
        strides=[[1, 1], [2, 2], [2, 1]],
        n_conv_per_stage=[2] * 3,
        num_classes=2,
        n_conv_per_stage_decoder=[2] * 2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    for name, value in made.named_parameters():
        if ".norm." in name:  # not those of an untrained network
            torch.nn.init.normal_(value, mean=float(name.endswith("weight")), std=0.3)
    return made.to(memory_format=torch.channels_last)


def test_outputs_and_gradients_are_those_of_the_layers_replaced(network):
    ours = copy.deepcopy(network)
    replace_layers(ours)
    slices = torch.randn(3, 1, 16, 12)
    results = []
    for one in (network, ours):
        outputs = one(slices)
        sum(
            (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum() for output in outputs
        ).backward()
        results.append((outputs, dict(one.named_parameters())))
    (theirs, expected), (found, parameters) = results
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5)
    assert parameters.keys() == expected.keys()
    for name, value in parameters.items():
        if not value.requires_grad:  # what the normalisation takes away
            assert expected[name].grad.abs().max() < 1e-3
            continue
        torch.testing.assert_close(value.grad, expected[name].grad, rtol=1e-3, atol=1e-3, msg=name)


def test_checkpoints_fit_before_and_after(network):
    ours = copy.deepcopy(network)
    replace_layers(ours)
    before, after = network.state_dict(), ours.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bfloat16_stays_bfloat16_in_channels_last(network):
    replace_layers(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        skip = network.encoder.stages[0](torch.randn(2, 1, 16, 12))
        doubled = network.decoder.transpconvs[1](torch.randn(2, 6, 8, 6))
    for values in (skip, doubled):
        assert values.dtype == torch.bfloat16
        assert values.is_contiguous(memory_format=torch.channels_last)
