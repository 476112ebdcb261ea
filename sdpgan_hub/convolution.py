"""Convolutions with a stride as autograd functions that a CPU trains faster with; their values are PyTorch's.

On a CPU, oneDNN computes a strided convolution's gradient and a transposed convolution fastest with channels last, a
filter's gradient with channels first. Converting between the two costs as much as it wins, unless each image is turned
as one matrix; and PyTorch's gradient of reflection padding writes every pixel anew where only the borders change.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

FEW_MAPS = 3
"""Up to so many maps, an image's, their gradient is computed column by column of the filter."""


def reflected_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
) -> Tensor:
    """Reflection padding, in rows above and below and in columns, and a convolution; N x C x H x W."""
    if _trains_on_cpu(x, weight):
        return _ReflectedConvolution.apply(x, weight, bias, stride, padding)
    return F.conv2d(_pad(x, padding), weight, bias, stride)


def transposed_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution k3 s1/2 without bias, N x C x H x W to N x C' x 2H x 2W; weight C x C' x 3 x 3."""
    if _trains_on_cpu(x, weight):
        return _TransposedConvolution.apply(x, weight)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)


def _pad(x: Tensor, padding: tuple[int, int]) -> Tensor:
    rows, columns = padding
    return F.pad(x, (columns, columns, rows, rows), mode="reflect") if rows or columns else x


def _trains_on_cpu(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _ReflectedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)  # x, often kept by a ReLU already, and padded once more by the backward pass
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(_pad(x, padding), weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        rows, columns = ctx.padding
        shape = (*x.shape[:2], x.shape[2] + 2 * rows, x.shape[3] + 2 * columns)
        grad = grad.contiguous()
        grad_x = grad_weight = grad_bias = None
        if of_weight or of_bias:
            padded = _pad(x, ctx.padding)
            _, grad_weight, grad_bias = _backward(grad, padded, weight, ctx.stride, (False, of_weight, of_bias))
            del padded
        if of_x and ctx.stride == 1 and weight.shape[1] <= FEW_MAPS:
            grad_x = _gradient_of_few_maps(grad, weight)
        elif of_x and ctx.stride == 1:
            grad_x = _backward(grad, grad.new_empty(shape), weight, 1, (True, False, False))[0]
        elif of_x:
            like = torch.empty(shape, memory_format=torch.channels_last)
            last = weight.contiguous(memory_format=torch.channels_last)
            grad_x = channels_first(_backward(channels_last(grad), like, last, ctx.stride, (True, False, False))[0])
        return None if grad_x is None else _fold(grad_x, ctx.padding), grad_weight, grad_bias, None, None


class _TransposedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        last = weight.contiguous(memory_format=torch.channels_last)
        return channels_first(F.conv_transpose2d(channels_last(x), last, stride=2, padding=1, output_padding=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.contiguous(), x, weight, None, (2, 2), (1, 1), (1, 1), True, (1, 1), 1, (*ctx.needs_input_grad, False)
        )
        return grad_x, grad_weight


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, of: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
    """The gradients for x, weight and bias of a convolution without padding, of those asked for."""
    biases = [weight.shape[0]] if of[2] else None
    return torch.ops.aten.convolution_backward(
        grad, x, weight, biases, (stride, stride), (0, 0), (1, 1), False, (0, 0), 1, of
    )


def _gradient_of_few_maps(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient for the input of a convolution of stride 1, column by column of the filter, then their sum.

    As in `networks.OutputConvolution`: computed by the eight or sixteen, maps of 3 would waste most of the work.
    """
    outputs, inputs, rows, columns = weight.shape
    filters = weight.flip(2).permute(1, 3, 0, 2).reshape(inputs * columns, outputs, rows, 1)
    each = F.conv2d(grad, filters, padding=(rows - 1, 0)).unflatten(1, (inputs, columns))
    width = grad.shape[3]
    result = grad.new_zeros(grad.shape[0], inputs, grad.shape[2] + rows - 1, width + columns - 1)
    for column in range(columns):
        result[..., column : column + width] += each[:, :, column]
    return result


def _fold(grad: Tensor, padding: tuple[int, int]) -> Tensor:
    """The gradient of reflection padding, a view into `grad`, whose borders are added to what they mirrored."""
    for dim, width in zip((2, 3), padding, strict=True):
        first, last = width, grad.shape[dim] - 1 - width
        for step in range(1, width + 1):
            grad.select(dim, first + step).add_(grad.select(dim, first - step))
            grad.select(dim, last - step).add_(grad.select(dim, last + step))
        grad = grad.narrow(dim, width, grad.shape[dim] - 2 * width)
    return grad


def channels_last(x: Tensor) -> Tensor:
    """A contiguous N x C x H x W with its channels last in memory."""
    n, c, h, w = x.shape
    return _turned(x.view(n, c, h * w)).view(n, h, w, c).permute(0, 3, 1, 2)


def channels_first(x: Tensor) -> Tensor:
    """The inverse of `channels_last`."""
    n, c, h, w = x.shape
    return _turned(x.permute(0, 2, 3, 1).reshape(n, h * w, c)).view(n, c, h, w)


def _turned(matrices: Tensor) -> Tensor:
    """N x A x B to a contiguous N x B x A, matrix by matrix: PyTorch copies a single turned one block by block."""
    result = matrices.new_empty(matrices.transpose(1, 2).shape)
    for to, matrix in zip(result, matrices, strict=True):
        to.copy_(matrix.t())
    return result
