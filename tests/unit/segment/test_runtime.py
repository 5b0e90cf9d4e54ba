"""The two engines and the choice between them."""

import ctypes

import numpy as np
import openvino
import pytest
import torch
from numpy.testing import assert_allclose

from msnode.errors import ConfigurationError
from msnode.segment import runtime


@pytest.fixture
def module():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))


def two_networks():
    """y = (x, -2x) and y = (3x, 3x), of one slice."""
    x = openvino.opset13.parameter([1, 1, 8, 8], np.float32)
    first = openvino.opset13.concat([x, openvino.opset13.multiply(x, np.float32(-2))], 1)
    thrice = openvino.opset13.multiply(x, np.float32(3))
    return openvino.Model([first, openvino.opset13.concat([thrice, thrice], 1)], [x], "double")


@pytest.mark.parametrize("threads", [1, 3])
def test_openvino_runs_any_number_of_slices_in_order(threads):
    engine = runtime.OpenVinoRuntime(two_networks(), threads=threads, precision="f32")
    assert engine.name == "openvino-cpu-f32"
    for count in (0, 1, 7):
        slices = np.random.default_rng(count).normal(size=(count, 1, 8, 8)).astype(np.float32)
        slices.setflags(write=False)
        expected = [
            np.concatenate(pair, axis=1) for pair in ((slices, -2 * slices), (3 * slices, 3 * slices))
        ]
        assert_allclose(engine.run(np.flip(slices, -1)), np.flip(expected, -1), rtol=1e-6)


@pytest.mark.parametrize(("capabilities", "precision"), [(["FP32", "BF16"], "bf16"), (["FP32"], "f32")])
def test_bfloat16_is_taken_where_the_processor_computes_in_it(monkeypatch, capabilities, precision):
    class Core(openvino.Core):
        def get_property(self, device, name):
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return capabilities

    monkeypatch.setattr(openvino, "Core", Core)
    assert runtime.OpenVinoRuntime(two_networks(), threads=1).name == f"openvino-cpu-{precision}"


def test_torch_runs_in_bfloat16_and_returns_float32(module):
    other = torch.nn.Conv2d(1, 2, 1)
    engine = runtime.TorchRuntime([module, other], "cpu")
    slices = np.random.default_rng(0).normal(size=(19, 1, 8, 8)).astype(np.float32)
    slices.setflags(write=False)
    logits = engine.run(slices)
    with torch.inference_mode():
        expected = np.stack([m(torch.from_numpy(slices.copy())).numpy() for m in (module, other)])
    assert engine.name == "torch-cpu-bf16"
    assert logits.dtype == np.float32
    assert_allclose(logits, expected, atol=0.03)


def test_cuda_where_there_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_count", lambda: 0)
    with pytest.raises(ConfigurationError, match="no CUDA device"):
        runtime.choose_device("cuda")
    assert runtime.choose_device("auto") == "cpu"
    assert runtime.choose_device("cpu") == "cpu"


def test_auto_takes_cuda_where_it_is_present(monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_count", lambda: 1)
    assert runtime.choose_device("auto") == "cuda"
    assert runtime.choose_device("cuda") == "cuda"
    assert runtime.choose_device("cpu") == "cpu"


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigurationError, match="auto, cpu or cuda"):
        runtime.choose_device("gpu")


@pytest.mark.parametrize(("init", "count", "expected"), [(0, 2, 2), (100, 2, 0)])
def test_the_driver_is_asked_for_its_devices(monkeypatch, init, count, expected):
    class Driver:
        @staticmethod
        def cuInit(_flags):  # noqa: N802 - the driver's name
            return init

        @staticmethod
        def cuDeviceGetCount(pointer):  # noqa: N802 - the driver's name
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = count
            return 0

    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: Driver)
    assert runtime.cuda_device_count() == expected


def test_no_driver_means_no_device(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(runtime.ctypes, "CDLL", missing)
    assert runtime.cuda_device_count() == 0


def test_open_runtime_builds_the_torch_modules_for_cuda_only(monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_count", lambda: 0)

    def modules():
        pytest.fail("the CPU path must not build a torch module")

    engine = runtime.open_runtime("auto", two_networks, modules, threads=1)
    assert engine.name.startswith("openvino-cpu-")


def test_cuda_without_torch_says_what_to_install(monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_count", lambda: 1)

    def modules():
        raise ModuleNotFoundError(name="torch")

    with pytest.raises(ConfigurationError, match=r"CUDA needs torch: install msnode\[gpu\]"):
        runtime.open_runtime("cuda", two_networks, modules)
