import numpy as np
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from msnode.encode.frames import binary_frames, label_frames, value_frames


def labels_of(shape=(4, 9, 7), largest=3, seed=1):
    """Random patches of labels, with slice 2 empty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, largest + 1, shape) * (rng.random(shape) < 0.2)
    labels[2] = 0
    labels[0, 0, 0] = largest
    return labels.astype(np.int32)


def decoded(frames, shape):
    """Frames as pydicom decodes them, (frame, row, column)."""
    options = {
        "rows": shape[1], "columns": shape[2], "samples_per_pixel": 1, "bits_allocated": frames.bits,
        "bits_stored": frames.bits, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": len(frames.slices), "pixel_keyword": "PixelData",
    }  # fmt: skip
    array, _ = get_decoder(RLELossless).as_array(frames.pixel_data, decoding_plugin="pydicom", **options)
    return array.reshape(-1, *shape[1:])


@pytest.mark.parametrize("shape", [(4, 9, 7), (4, 8, 8), (5, 3, 5)])
def test_each_label_of_a_slice_is_a_frame_of_bits(shape):
    labels = labels_of(shape)
    frames = binary_frames(labels)
    size = shape[1] * shape[2]
    bits = np.unpackbits(np.frombuffer(frames.pixel_data, np.uint8), bitorder="little")
    stored = bits[: len(frames.slices) * size].reshape(-1, *shape[1:])
    assert not bits[len(frames.slices) * size :].any()
    assert len(frames.pixel_data) % 2 == 0
    assert sorted(zip(frames.segments, frames.slices, strict=True)) == list(
        zip(frames.segments, frames.slices, strict=True)
    )
    again = np.zeros_like(labels)
    for frame, segment, k in zip(stored, frames.segments, frames.slices, strict=True):
        assert frame.any()
        again[k][frame == 1] = segment
    np.testing.assert_array_equal(again, labels)


def test_values_of_an_odd_size_are_padded():
    values = np.zeros((3, 3, 3), np.uint8)
    values[1] = 255
    frames = value_frames(values, 1)
    assert (frames.slices, frames.segments) == ((1,), (1,))
    assert frames.pixel_data == b"\xff" * 9 + b"\0"


@pytest.mark.parametrize(("largest", "bits"), [(3, 8), (255, 8), (256, 16), (700, 16)])
def test_labels_survive_run_length_encoding(largest, bits):
    labels = np.zeros((4, 40, 300), np.int32)  # rows longer than a run
    labels[0, 5:20, 3:290] = largest
    labels[1, 7] = 1 + np.arange(300) % largest  # literal runs longer than a run
    labels[3, 2:4, ::2] = 2
    labels[3, 39, 299] = 1
    frames = label_frames(labels)
    assert frames.transfer_syntax == RLELossless
    assert (frames.bits, frames.slices) == (bits, (0, 1, 3))
    np.testing.assert_array_equal(decoded(frames, labels.shape), labels[[0, 1, 3]])


def test_runs_of_any_length_survive():
    labels = np.zeros((2, 259, 260), np.int32)
    for run in range(259):
        labels[0, run, :run] = 9
        labels[1, run, :run] = np.arange(run) % 2 + 1
    frames = label_frames(labels)
    assert frames.transfer_syntax == RLELossless
    np.testing.assert_array_equal(decoded(frames, labels.shape), labels)


def test_what_compression_does_not_shrink_is_left_alone():
    labels = labels_of((4, 9, 7))
    frames = label_frames(labels)
    assert frames.transfer_syntax == ExplicitVRLittleEndian
    stored = np.frombuffer(frames.pixel_data, np.uint8)[: 3 * 63].reshape(3, 9, 7)
    np.testing.assert_array_equal(stored, labels[[0, 1, 3]])
