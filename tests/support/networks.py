"""A network that needs no weights: it says the same of every series."""

from dataclasses import dataclass, field

import numpy as np

from msnode.domain.imaging import Prediction, Volume

LARGE, SMALL = (slice(4, 6), slice(20, 24), slice(20, 25)), (slice(8, 9), slice(30, 32), slice(10, 12))


def find_brain(volume):
    """An ellipse in every slice but the first and the last two."""
    _, rows, columns = volume.data.shape
    i, j = np.ogrid[:rows, :columns]
    ellipse = ((i - rows / 2) / (0.3 * rows)) ** 2 + ((j - columns / 2) / (0.3 * columns)) ** 2 < 1
    brain = np.zeros(volume.data.shape, np.uint8)
    brain[1:-2] = ellipse
    return Volume(brain, volume.grid)


@dataclass
class FakeNetwork:
    """Says 0.9 in one box of the prepared grid and 0.6 in another, where its members differ."""

    extract: object = None
    runtime_name: str = "fake-cpu-f32"
    seen: list = field(default_factory=list)

    def predict(self, prepared):
        self.seen.append(prepared)
        lesion, spread = (np.zeros(prepared.grid.shape, np.float32) for _ in range(2))
        lesion[LARGE], lesion[SMALL] = 0.9, 0.6
        spread[LARGE], spread[SMALL] = 0.05, 0.3
        return Prediction(np.stack([1 - lesion, lesion]), spread)
