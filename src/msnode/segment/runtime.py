"""Runs a network on slices: OpenVINO on the CPU, torch on CUDA. It knows no bundle and no recipe.

Asking for a device that the machine does not have is an error; nothing falls back silently.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import openvino
    import torch
    from numpy.typing import NDArray


_GPUS = Path("/proc/driver/nvidia/gpus")
_BATCH = 16
"""Slices a network sees at once on CUDA."""
_MOST_STREAMS = 16
"""Slices computed at once: each keeps working memory of its own."""


class Runtime(Protocol):
    """One or several loaded networks of one architecture.

    Attributes:
        name: engine, device and precision, such as "openvino-cpu-f32"; recorded with every result.
    """

    name: str

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (network, n, class, row, column) of slices (n, channel, row, column)."""
        ...


class OpenVinoRuntime:
    """OpenVINO on the CPU: one slice a thread, which needs no synchronisation within a network.

    In bfloat16 where the processor computes in it (AVX512_BF16 or AMX), else in float32.

    Args:
        model: one input (1, channel, row, column), one output (1, class, row, column) a network.
        threads: number of threads; None means one for each core that this process may use.
        cache_dir: where compiled models are kept for the next start; None compiles anew.
        precision: "bf16" or "f32"; None chooses.
    """

    def __init__(
        self,
        model: openvino.Model,
        threads: int | None = None,
        cache_dir: Path | None = None,
        precision: str | None = None,
    ) -> None:
        import openvino  # noqa: PLC0415 - 50 MB that a CUDA worker and the command line do not need

        core = openvino.Core()
        if precision is None:
            precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        threads = threads or len(os.sched_getaffinity(0))
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": min(threads, _MOST_STREAMS),
        }
        if cache_dir is not None:
            options["CACHE_DIR"] = str(cache_dir)
        self.name = f"openvino-cpu-{precision}"
        self._compiled = core.compile_model(model, "CPU", options)
        self._queue = openvino.AsyncInferQueue(self._compiled, int(options["NUM_STREAMS"]))  # type: ignore[call-overload] # it is an int
        self._queue.set_callback(_keep)

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (network, n, class, row, column) of slices (n, channel, row, column)."""
        outputs = self._compiled.outputs
        logits = np.empty((len(outputs), len(slices), *outputs[0].shape[1:]), dtype=np.float32)
        for index, one in enumerate(slices):
            self._queue.start_async({0: np.ascontiguousarray(one[np.newaxis])}, logits[:, index])
        self._queue.wait_all()
        return logits


def _keep(request: openvino.InferRequest, logits: NDArray[np.float32]) -> None:
    for tensor, target in zip(request.output_tensors, logits, strict=True):
        target[:] = tensor.data[0]


class TorchRuntime:
    """torch modules under autocast: float16 on CUDA, as nnU-Net runs them, bfloat16 on the CPU.

    Args:
        modules: networks that take (n, channel, row, column) and return (n, class, row, column).
        device: "cuda", or "cpu" where a test needs no GPU.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], device: str) -> None:
        import torch  # noqa: PLC0415 - half a gigabyte that the CPU path must not load

        self.name = f"torch-{device}-{'f16' if device == 'cuda' else 'bf16'}"
        self._torch = torch
        self._device = device
        self._precision = torch.float16 if device == "cuda" else torch.bfloat16
        self._modules = [m.to(device).to(memory_format=torch.channels_last).eval() for m in modules]

    def run(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (network, n, class, row, column) of slices (n, channel, row, column)."""
        torch = self._torch
        done = []
        with torch.inference_mode(), torch.autocast(self._device, dtype=self._precision):
            for batch in torch.from_numpy(np.array(slices, order="C")).split(_BATCH):
                on_device = batch.to(self._device).contiguous(memory_format=torch.channels_last)
                done.append(torch.stack([module(on_device).float() for module in self._modules]).cpu())
        return np.asarray(torch.cat(done, dim=1).numpy())


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


def choose_gpu(instance: int) -> None:
    """Give each worker of a machine a GPU of its own, as long as there are enough; before CUDA is loaded.

    Args:
        instance: number of the worker on its machine, from 1.
    """
    count = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    if count > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str((instance - 1) % count))


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
    device: str,
    model: Callable[[], openvino.Model],
    modules: Callable[[], Sequence[torch.nn.Module]],
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Runtime:
    """Load networks on a device.

    Args:
        device: "auto", "cpu" or "cuda".
        model: builds the OpenVINO model, called for the CPU only.
        modules: builds the torch modules, called for CUDA only.
        threads: CPU threads.
        cache_dir: where compiled CPU models are kept.

    Raises:
        ConfigurationError: the device is not there, or torch is not installed for it.
    """
    if choose_device(device) == "cuda":
        try:
            return TorchRuntime(modules(), "cuda")
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"CUDA needs {error.name}: install msnode[gpu], or set model.device to cpu"
            ) from None
    return OpenVinoRuntime(model(), threads, cache_dir)
