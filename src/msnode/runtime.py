"""Runs a network on slices: OpenVINO on the CPU, torch on CUDA. It knows no bundle and no recipe.

Asking for a device that the machine does not have is an error; nothing falls back silently.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol

import numpy as np

from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from numpy.typing import NDArray


class Runtime(Protocol):
    """A loaded network.

    Attributes:
        name: engine, device and precision, such as "openvino-cpu-f32"; recorded with every result.
    """

    name: str

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, class, row, column) of slices (n, channel, row, column)."""
        ...


class OpenVinoRuntime:
    """OpenVINO on the CPU in float32.

    Args:
        model: intermediate representation (.xml, its .bin beside it).
        threads: number of threads; None leaves the choice to OpenVINO (all cores).
    """

    name = "openvino-cpu-f32"

    def __init__(self, model: Path, threads: int | None = None) -> None:
        import openvino  # noqa: PLC0415 - 50 MB that a CUDA worker and the command line do not need

        options: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(str(model), "CPU", options)

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, class, row, column) of slices (n, channel, row, column)."""
        return np.array(self._compiled(np.ascontiguousarray(slices))[0])


class TorchRuntime:
    """A torch module in bfloat16 autocast.

    Args:
        module: network that takes (n, channel, row, column) and returns (n, class, row, column).
        device: "cuda", or "cpu" where a test needs no GPU.
    """

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        import torch  # noqa: PLC0415 - half a gigabyte that the CPU path must not load

        self.name = f"torch-{device}-bf16"
        self._torch = torch
        self._device = device
        self._module = module.to(device).to(memory_format=torch.channels_last).eval()

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, class, row, column) of slices (n, channel, row, column)."""
        torch = self._torch
        batch = torch.from_numpy(np.array(slices, order="C")).to(self._device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self._device, dtype=torch.bfloat16):
            logits = self._module(batch)
        return np.asarray(logits.float().cpu().numpy())


def cuda_device_count() -> int:
    """Number of CUDA devices, asked of the driver itself so that no framework has to be loaded."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def choose_device(device: str) -> str:
    """The device that a setting means: "auto" is CUDA where present, else the CPU.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        "cpu" or "cuda".

    Raises:
        ConfigurationError: an unknown name, or "cuda" where there is no CUDA device.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise ConfigurationError(f"model.device is {device!r}; it must be auto, cpu or cuda")
    if device == "cpu":
        return "cpu"
    present = cuda_device_count() > 0
    if device == "cuda" and not present:
        raise ConfigurationError("model.device is cuda, and this machine has no CUDA device; use auto or cpu")
    return "cuda" if present else "cpu"


def open_runtime(
    device: str, model: Path, module: Callable[[], torch.nn.Module], threads: int | None = None
) -> Runtime:
    """Load a network on a device.

    Args:
        device: "auto", "cpu" or "cuda".
        model: OpenVINO intermediate representation, read on the CPU.
        module: builds the torch module, called for CUDA only.
        threads: CPU threads.

    Raises:
        ConfigurationError: the device is not there, or torch is not installed for it.
    """
    if choose_device(device) == "cuda":
        try:
            return TorchRuntime(module(), "cuda")
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"CUDA needs {error.name}: install msnode[gpu], or set model.device to cpu"
            ) from None
    return OpenVinoRuntime(model, threads)
