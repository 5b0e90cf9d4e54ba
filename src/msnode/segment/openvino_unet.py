"""nnU-Net's plain convolutional U-Net as an OpenVINO model, built from plans and weights without torch.

The network is PlainConvUNet of dynamic_network_architectures (Isensee et al., Nature Methods 2021,
18:203-211): per stage convolutions, each followed by InstanceNorm and LeakyReLU, the first one of a stage
with the stage's stride; up again by transposed convolutions, each joined with the skip of its resolution;
a 1 x 1 convolution gives logits at full resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import Model, opset13
from safetensors import SafetensorError
from safetensors.numpy import load_file

from msnode.errors import BundleCorrupt
from msnode.segment.bundle import architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from openvino import Node

_SLOPE, _EPS = 0.01, 1e-5
"""Of torch's LeakyReLU and InstanceNorm, where the plans name none."""
_FIXED = {
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "dropout_op": None,
    "nonlin": "torch.nn.LeakyReLU",
}
"""Arguments that are built in one way only."""


def read_model(
    folder: Path, folds: Sequence[str], channels: int, classes: int, patch: tuple[int, int]
) -> Model:
    """The networks of several folds as one model, float32.

    One model for all: they share their working memory, and one call runs them on a slice.

    Args:
        folder: holds plans.json and a .safetensors of each fold.
        folds: such as "fold_0".
        channels: number of input channels.
        classes: number of classes, background included.
        patch: rows and columns of a slice.

    Returns:
        One input (1, channel, row, column); one output (1, class, row, column) a fold, in their order.

    Raises:
        BundleCorrupt: the plans name an architecture that is not known, or the weights do not fit it.
    """
    name, kwargs = architecture(folder)
    if name not in NETWORKS:
        raise BundleCorrupt(f"{folder.name}: architecture {name!r} is unknown to this version")
    slices = opset13.parameter([1, channels, *patch], np.float32, name="slices")
    results = []
    for fold in folds:
        weights = _read_weights(folder / f"{fold}.safetensors")
        try:
            output = NETWORKS[name](slices, kwargs, weights)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise BundleCorrupt(f"{folder.name}: the weights of {fold} do not fit its plans") from error
        if tuple(output.shape) != (1, classes, *patch):
            raise BundleCorrupt(f"{folder.name}: the weights of {fold} do not fit its plans")
        result = opset13.result(output)
        # else a number counted through the life of the process, under which no compiled model is found again
        result.output(0).get_tensor().set_names({fold})
        results.append(result)
    return Model(results, [slices], folder.name)


def plain_conv_unet(
    slices: Node, kwargs: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]
) -> Node:
    """Build PlainConvUNet.

    Args:
        slices: (n, channel, row, column); rows and columns are multiples of the product of the strides.
        kwargs: `arch_kwargs` of the plans.
        weights: name in the torch state dict → values.

    Returns:
        Logits (n, class, row, column).

    Raises:
        ValueError: the plans ask for a layer that is not built here.
        KeyError: an argument or a tensor is missing.
    """
    for key, value in _FIXED.items():
        if kwargs[key] != value:
            raise ValueError(f"{key} is {kwargs[key]!r}, not {value!r}")
    return _PlainConvUNet(kwargs, weights).build(slices)


class _PlainConvUNet:
    """One network under construction; see `plain_conv_unet`."""

    def __init__(self, kwargs: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._kwargs = kwargs
        self._weights = weights
        self._slope = np.array([(kwargs["nonlin_kwargs"] or {}).get("negative_slope", _SLOPE)], np.float32)
        self._eps = float((kwargs["norm_op_kwargs"] or {}).get("eps", _EPS))

    def build(self, x: Node) -> Node:
        strides, decoder = self._kwargs["strides"], self._kwargs["n_conv_per_stage_decoder"]
        skips = []
        for stage, (stride, count) in enumerate(zip(strides, self._kwargs["n_conv_per_stage"], strict=True)):
            x = self._stage(x, f"encoder.stages.{stage}.0", count, stride)
            skips.append(x)
        skips.pop()
        for stage, count in enumerate(decoder):
            x = self._up(x, f"decoder.transpconvs.{stage}", strides[-1 - stage])
            x = opset13.concat([x, skips.pop()], 1)
            x = self._stage(x, f"decoder.stages.{stage}", count, (1, 1))
        return self._convolve(x, f"decoder.seg_layers.{len(decoder) - 1}", (1, 1))

    def _stage(self, x: Node, name: str, count: int, stride: Sequence[int]) -> Node:
        for i in range(count):
            block = f"{name}.convs.{i}"
            x = self._convolve(x, f"{block}.conv", stride if i == 0 else (1, 1))
            x = opset13.mvn(x, np.array([2, 3]), True, self._eps, "inside_sqrt")
            x = opset13.multiply(x, self._column(f"{block}.norm.weight"))
            x = opset13.add(x, self._column(f"{block}.norm.bias"))
            x = opset13.prelu(x, self._slope)
        return x

    def _convolve(self, x: Node, name: str, stride: Sequence[int]) -> Node:
        kernel = self._weights[f"{name}.weight"]
        pads = [(side - 1) // 2 for side in kernel.shape[2:]]
        x = opset13.convolution(x, kernel, list(stride), pads, pads, [1, 1])
        return opset13.add(x, self._column(f"{name}.bias"))

    def _up(self, x: Node, name: str, stride: Sequence[int]) -> Node:
        """Transposed convolution whose kernel is its stride, as a 1 x 1 convolution to the pixels of a block.

        The CPU runs the whole network a fifth faster so than with its transposed convolution.
        """
        kernel = self._weights[f"{name}.weight"]  # (from, to, row, column)
        side = stride[0]
        if kernel.shape[2:] != (side, side) or tuple(stride) != (side, side):
            raise ValueError(f"{name} does not double rows and columns alike")
        blocks = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)).reshape(-1, kernel.shape[0], 1, 1)
        x = opset13.convolution(x, blocks, [1, 1], [0, 0], [0, 0], [1, 1])
        x = opset13.add(x, np.tile(self._column(f"{name}.bias"), (1, side * side, 1, 1)))
        return opset13.depth_to_space(x, "blocks_first", side)

    def _column(self, name: str) -> NDArray[np.float32]:
        return self._weights[name].reshape(1, -1, 1, 1)


NETWORKS: Mapping[str, Callable[[Node, Mapping[str, Any], Mapping[str, NDArray[np.float32]]], Node]] = {
    "dynamic_network_architectures.architectures.unet.PlainConvUNet": plain_conv_unet,
}
"""By the class name in nnU-Net's plans: the same names as `architectures.ARCHITECTURES`, which is torch's."""


def _read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return {name: values.astype(np.float32) for name, values in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BundleCorrupt(f"{path.name} is not a safetensors file; no other weights are read") from error
