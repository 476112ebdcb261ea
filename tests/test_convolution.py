"""The convolutions that training on a CPU is faster with are PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdpgan_hub.convolution import channels_first, channels_last, reflected_convolution, transposed_convolution
from sdpgan_hub.networks import ReflectedConvolution, TransposedConvolution


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(result: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(result, inputs, normal(*result.shape, seed=9))


def assert_same(result: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert type(result.grad_fn) is not type(expected.grad_fn)  # it is ours that is tested
    torch.testing.assert_close(result, expected)
    for ours, theirs in zip(gradients(result, *inputs), gradients(expected, *inputs), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("maps", [3, 5])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), 1, (1, 1)), ((3, 3), 2, (1, 1)), ((7, 7), 1, (3, 3)), ((7, 1), 1, (3, 0)), ((1, 1), 1, (0, 0))],
)
def test_a_reflected_convolution_and_its_gradients_are_those_of_padding_and_a_convolution(
    kernel, stride, padding, biased, maps
):
    x, weight = normal(2, maps, 12, 16).requires_grad_(), normal(7, maps, *kernel, seed=1).requires_grad_()
    bias = normal(7, seed=2).requires_grad_() if biased else None
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), mode="reflect")
    expected = F.conv2d(padded, weight, bias, stride)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    assert_same(reflected_convolution(x, weight, bias, stride, padding), expected, inputs)


def test_a_transposed_convolution_and_its_gradients_are_pytorchs():
    x, weight = normal(2, 6, 8, 10).requires_grad_(), normal(6, 4, 3, 3, seed=1).requires_grad_()
    expected = F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    assert_same(transposed_convolution(x, weight), expected, [x, weight])


@pytest.mark.parametrize("constant", ["x", "weight"])
def test_only_the_gradients_asked_for_are_computed(constant):
    values = {"x": normal(1, 4, 8, 8), "weight": normal(4, 4, 3, 3, seed=1)}
    for name, value in values.items():
        value.requires_grad_(name != constant)
    other = next(value for name, value in values.items() if name != constant)
    for result in (reflected_convolution(*values.values(), None, 2, (1, 1)), transposed_convolution(*values.values())):
        result.sum().backward()
        assert values[constant].grad is None and other.grad.abs().sum() > 0
        other.grad = None


@pytest.mark.parametrize("layer", [ReflectedConvolution(3, 4, 3, 2), TransposedConvolution(3, 4)])
def test_without_gradients_in_bfloat16_and_in_other_formats_it_is_pytorchs_own(layer):
    x = normal(1, 3, 8, 8)
    expected = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(torch.compile(layer, backend="eager")(x), expected)


def test_turning_to_channels_last_and_back():
    x = normal(2, 5, 4, 6)
    turned = channels_last(x)
    assert torch.equal(turned, x) and turned.is_contiguous(memory_format=torch.channels_last)
    back = channels_first(turned)
    assert torch.equal(back, x) and back.is_contiguous()
