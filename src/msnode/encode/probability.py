"""The lesion probability of every voxel as a FRACTIONAL Segmentation object (PS3.3 A.51, C.8.20.2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.seg import SegmentationTypeValues

from msnode.encode import codes
from msnode.encode.provenance import ResultIdentity
from msnode.encode.segmentation import Content, Segment, segmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import Output, Provenance


_CERTAIN = 255
"""Stored value of probability 1."""


def encode_probability(
    source: SourceVolume,
    probability: NDArray[np.uint8],
    provenance: Provenance,
    *,
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the probability as one segment of 8-bit values on every plane, explicit VR little endian.

    Maximum Fractional Value is 255, so the values are stored as they are.

    Args:
        source: the volume that was read.
        probability: lesion probability in 255ths on the grid of `source`, (slice, row, column).
        provenance: what made the result; its model must be known.
        identity: what the results of one reading share; made from the other arguments where not given.

    Returns:
        An output of kind "probability".

    Raises:
        ValueError: every value is 0, the shape is not that of `source`, or the model is not known.
    """
    model = provenance.model
    if model is None or not probability.any():
        raise ValueError("a probability map needs a value over zero and a model")
    if probability.shape != source.volume.grid.shape:
        raise ValueError("the probability does not lie on the grid of its source")
    identity = identity or ResultIdentity.of_reading(source, provenance)
    segment = Segment(
        number=1,
        label="MS lesion probability",
        description="Probability that a voxel is lesion, before any threshold; 255 is certain",
        colour=codes.lesion_colour(1),
    )
    content = Content(
        kind="probability",
        form=SegmentationTypeValues.FRACTIONAL,
        label="MS_PROBABILITY",
        description="Probability of MS lesion, AI result, not verified",
        segments=(segment,),
        pixels=probability / np.float32(_CERTAIN),
    )
    return segmentation(source, content, model, identity)
