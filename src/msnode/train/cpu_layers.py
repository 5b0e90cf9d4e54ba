"""Layers of nnU-Net's network that stay in channels-last memory, for training on a CPU.

oneDNN convolves fastest in channels-last. torch's own layers leave it: instance normalisation goes through a
contiguous copy, forward and backward, and back; here each image of a batch is a batch of its own to batch
normalisation, which reads channels-last as it is. A transposed convolution of 2 x 2 with stride 2 is one
matrix product, which is twice as fast as oneDNN's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_norm, _norm_backward = torch.ops.aten.native_batch_norm.out, torch.ops.aten.native_batch_norm_backward.out
_leaky_backward = torch.ops.aten.leaky_relu_backward.grad_input


class NormAct(torch.nn.Module):
    """`norm`, then leaky ReLU; it holds the parameters of `norm` under their own names.

    Args:
        norm: affine instance normalisation, without running statistics.
        slope: of the leaky ReLU below 0, positive.
    """

    def __init__(self, norm: torch.nn.InstanceNorm2d, slope: float) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.eps, self.slope = norm.eps, slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channel, row, column), any layout → the same shape, channels-last."""
        result: torch.Tensor = _NormAct.apply(images, self.weight, self.bias, self.eps, self.slope)
        return result


class Doubling(torch.nn.Module):
    """A transposed convolution of 2 x 2 with stride 2; it holds the parameters of `convolution`.

    Args:
        convolution: with bias.
    """

    def __init__(self, convolution: torch.nn.ConvTranspose2d) -> None:
        super().__init__()
        assert convolution.bias is not None  # noqa: S101 - tells the type checker
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channel, row, column) → (n, new channel, 2 row, 2 column), channels-last."""
        count, channels, rows, columns = images.shape
        new = self.weight.shape[1]
        matrix = self.weight.permute(2, 3, 1, 0).reshape(4 * new, channels)
        blocks = functional.linear(images.permute(0, 2, 3, 1), matrix, self.bias.repeat(4))
        placed = blocks.view(count, rows, columns, 2, 2, new).permute(0, 1, 3, 2, 4, 5)
        return placed.reshape(count, 2 * rows, 2 * columns, new).permute(0, 3, 1, 2)


def replace_layers(network: torch.nn.Module) -> None:
    """Replace the layers of an nnU-Net of two dimensions by the faster ones, in place.

    Names and values of all parameters stay: checkpoints fit the network before and after.
    """
    block: Any
    for block in list(network.modules()):
        if isinstance(getattr(block, "norm", None), torch.nn.InstanceNorm2d):
            block.norm = NormAct(block.norm, block.nonlin.negative_slope)
            block.all_modules = torch.nn.Sequential(block.conv, block.norm)
            block.conv.bias.requires_grad_(False)  # normalisation takes it away again: its gradient is 0
    doublings: Any = network.decoder.transpconvs  # type: ignore[union-attr] # nnU-Net's has a decoder
    for number, convolution in enumerate(doublings):
        if convolution.kernel_size == convolution.stride == (2, 2):
            doublings[number] = Doubling(convolution)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float
    ) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        result = torch.empty_like(images)
        mean = images.new_empty(images.shape[:2], dtype=torch.float32)
        scale = torch.empty_like(mean)
        for i in range(len(images)):
            one = result[i : i + 1]
            kept = {"out": one, "save_mean": mean[i], "save_invstd": scale[i]}
            _norm(images[i : i + 1], weight, bias, None, None, True, 0.0, eps, **kept)
            torch.nn.functional.leaky_relu_(one, slope)
        ctx.save_for_backward(images, result, weight, mean, scale)
        ctx.eps, ctx.slope = eps, slope
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, result, weight, mean, scale = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        linear, of_images = torch.empty_like(gradient[:1]), torch.empty_like(images)
        of_weight = weight.new_empty(mean.shape)
        of_bias = torch.empty_like(of_weight)
        for i in range(len(images)):
            place = slice(i, i + 1)
            _leaky_backward(gradient[place], result[place], ctx.slope, True, grad_input=linear)
            kept = {"out0": of_images[place], "out1": of_weight[i], "out2": of_bias[i]}
            statistics = (None, None, mean[i], scale[i], True, ctx.eps, [True, True, True])
            _norm_backward(linear, images[place], weight, *statistics, **kept)
        return of_images, of_weight.sum(0), of_bias.sum(0), None, None
