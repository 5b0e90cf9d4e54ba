"""OHIF in a headless browser, served as deploy/viewer serves it, and what its viewport shows."""

import base64
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import BrowserContext, Page, sync_playwright
from scipy import ndimage

from support.environment import ROOT, missing, peer
from support.peers import OrthancPeer, free_port, listens, running

_BUILD = ROOT / ".cache" / "ohif"
_WAIT_MS = 60_000
_ARGUMENTS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
_COLOURED = 60
"""Pixels whose red, green and blue differ by more are no grey picture."""

_VIEWPORT = """
const services = window.services;
const viewport = services?.cornerstoneViewportService.getCornerstoneViewport(
  services.viewportGridService.getActiveViewportId());
"""


def build() -> Path:
    """The OHIF build that `make setup` fetched; skips or fails where it is not there."""
    if not (_BUILD / "VERSION").exists():
        missing(f"no OHIF build at {_BUILD}: deploy/viewer/fetch_ohif.py {_BUILD}")
    return _BUILD


@dataclass
class Viewer:
    """The viewer in a browser: one page at a time, a fresh one for each study and list that is opened."""

    context: BrowserContext
    page: Page
    url: str
    screenshots: Path

    def open_list(self) -> str:
        """The text of the study list."""
        self._open(self.url)
        self.page.wait_for_selector("[data-cy=study-list-results] tr")
        return self.page.locator("[data-cy=study-list-results]").inner_text()

    def open_study(self, study_uid: str) -> None:
        """Open a study and wait until its first image is drawn; nothing is clicked."""
        self._open(f"{self.url}/viewer?StudyInstanceUIDs={study_uid}")
        self._wait("viewport?.getImageIds?.().length && viewport.getCornerstoneImage?.()")

    def open_series(self, description: str, *shows: str) -> None:
        """Double-click a series in the list, and wait until an image is shown that bears one of the UIDs."""
        self.page.locator("[data-cy=studyBrowser-panel]").get_by_text(description, exact=True).dblclick()
        self._wait(f"{list(shows)}.some(uid => viewport?.getCornerstoneImage?.()?.imageId.includes(uid))")

    def wait_for_segments(self, count: int) -> list[str]:
        """The labels in the list of segments, once there are so many."""
        self._wait("services?.segmentationService.getSegmentations().length")
        labels = self.page.locator("[data-cy=data-row]")
        labels.nth(count - 1).wait_for(state="attached")
        return [text.strip().split("\n")[-1] for text in labels.all_inner_texts()]

    def show_instance(self, sop_instance_uid: str) -> None:
        """Scroll to an image of the series in the viewport."""
        self._run(f"""
          const index = viewport.getImageIds().findIndex(id => id.includes('/{sop_instance_uid}/'));
          return viewport.setImageIdIndex(index);
        """)

    def shown_instance(self) -> str:
        """SOP Instance UID of the image in the viewport."""
        found: str = self._run("return viewport.getCurrentImageId()")
        return found.split("/instances/")[1].split("/", maxsplit=1)[0]

    def picture(self) -> NDArray[np.uint8]:
        """What is drawn in the viewport, without text and annotations over it: (row, column, RGB)."""
        content = self._run("return viewport.canvas.toDataURL('image/png')").split(",")[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))

    def points(self) -> dict[str, list[float]]:
        """Places of a report's measurements as the viewer has read them, LPS mm, by tracking UID."""
        found: dict[str, list[float]] = self._run("""
          const all = window.cornerstoneTools.annotation.state.getAllAnnotations();
          const drawn = all.filter(a => a.metadata.toolName === 'DICOMSRDisplay');
          return Object.fromEntries(
            drawn.map(a => [a.data.TrackingUniqueIdentifier, a.data.handles.points[0]]));
        """)
        return {uid: list(point) for uid, point in found.items()}

    def complaints(self) -> list[str]:
        """What the viewer itself reports as gone wrong."""
        return self.page.get_by_text("Something went wrong").all_inner_texts()

    def keep(self, name: str) -> None:
        """A screenshot for people to look at."""
        self.screenshots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.screenshots / f"{name}.png")

    def _open(self, url: str) -> None:
        self.page.close()
        self.page = self.context.new_page()
        self.page.goto(url)

    def _run(self, script: str) -> Any:
        return self.page.evaluate(f"async () => {{ {_VIEWPORT} {script} }}")

    def _wait(self, condition: str) -> None:
        script = f"() => {{ try {{ {_VIEWPORT} return {condition}; }} catch {{ return false; }} }}"
        self.page.wait_for_function(script, timeout=_WAIT_MS)  # it throws while the viewer starts


@contextmanager
def viewer(archive: OrthancPeer, tmp: Path) -> Iterator[Viewer]:
    """OHIF on the studies of `archive`, in a browser without a window."""
    chromium, port = peer("chromium"), free_port()
    command = [
        sys.executable, str(ROOT / "deploy" / "viewer" / "serve.py"), str(build()),
        "--port", str(port), "--dicom-web", f"{archive.url}/dicom-web",
    ]  # fmt: skip
    screenshots = Path(os.environ.get("MSNODE_SCREENSHOTS") or ROOT / "bench-output" / "screenshots")
    with running(command, tmp / "serve.log", ready=lambda: listens(port)), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(_WAIT_MS)
        yield Viewer(context, context.new_page(), f"http://127.0.0.1:{port}", screenshots)
        browser.close()


def letterboxed(
    picture: NDArray[np.generic], canvas: Sequence[int], spacing: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.generic]:
    """`picture` as large as fits into a canvas, pixels by nearest neighbour.

    The viewer puts the middle of pixel n // 2 into the middle of the canvas, of segment and image alike.

    Args:
        picture: (row, column, …).
        canvas: rows and columns.
        spacing: mm between rows and between columns.
    """
    extent = np.array(picture.shape[:2]) * spacing
    scale = float(min(np.array(canvas[:2]) / extent))
    placed = np.zeros((*canvas[:2], *picture.shape[2:]), picture.dtype)
    index = []
    for side, pixels, pitch in zip(canvas[:2], picture.shape[:2], spacing, strict=True):
        index.append(
            np.floor((np.arange(side) + 0.5 - side / 2) / scale / pitch + pixels // 2 + 0.5).astype(int)
        )
    inside = [(i >= 0) & (i < n) for i, n in zip(index, picture.shape[:2], strict=True)]
    rows, columns = (np.nonzero(each)[0] for each in inside)
    placed[np.ix_(rows, columns)] = picture[np.ix_(index[0][rows], index[1][columns])]
    return placed


def coloured(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture (row, column, RGB) is not grey."""
    levels = picture.astype(int)
    return (levels.max(axis=-1) - levels.min(axis=-1)) > _COLOURED


def astray(found: NDArray[np.bool_], expected: NDArray[np.bool_], reach: int) -> float:
    """The part of `found` that is more than `reach` pixels from what is expected; 1 where nothing is."""
    if not found.any():
        return 1.0
    near = ndimage.maximum_filter(expected, size=2 * reach + 1)
    return float((found & ~near).sum() / found.sum())


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of two pictures of one size."""
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])
