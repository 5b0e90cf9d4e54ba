"""The two engines and the choice between them."""

import ctypes

import numpy as np
import openvino
import pytest
import torch
from numpy.testing import assert_allclose

from msnode import runtime
from msnode.errors import ConfigurationError


@pytest.fixture
def module():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))


def intermediate_representation(folder):
    """A network y = (x, -2x) as OpenVINO keeps it."""
    x = openvino.opset13.parameter([-1, 1, 8, 8], np.float32)
    y = openvino.opset13.concat([x, openvino.opset13.multiply(x, np.float32(-2))], 1)
    path = folder / "double.xml"
    openvino.save_model(openvino.Model([y], [x], "double"), path)
    return path


def test_openvino_runs_any_number_of_slices(tmp_path):
    engine = runtime.OpenVinoRuntime(intermediate_representation(tmp_path), threads=1)
    assert engine.name == "openvino-cpu-f32"
    for count in (1, 3):
        slices = np.random.default_rng(count).normal(size=(count, 1, 8, 8)).astype(np.float32)
        slices.setflags(write=False)
        assert_allclose(engine.run(slices), np.concatenate([slices, -2 * slices], axis=1), rtol=1e-6)


def test_torch_runs_in_bfloat16_and_returns_float32(module):
    engine = runtime.TorchRuntime(module, "cpu")
    slices = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    slices.setflags(write=False)
    logits = engine.run(slices)
    with torch.inference_mode():
        expected = module(torch.from_numpy(slices.copy())).numpy()
    assert engine.name == "torch-cpu-bf16"
    assert logits.dtype == np.float32
    assert_allclose(logits, expected, atol=0.02)


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


def test_open_runtime_builds_the_torch_module_for_cuda_only(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cuda_device_count", lambda: 0)

    def module():
        pytest.fail("the CPU path must not build a torch module")

    engine = runtime.open_runtime("auto", intermediate_representation(tmp_path), module, threads=1)
    assert engine.name == "openvino-cpu-f32"
