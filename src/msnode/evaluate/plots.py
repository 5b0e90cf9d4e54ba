"""The figures of a report, each as bytes that a page can hold.

Line figures are SVG, slices are PNG. matplotlib is imported on first use: reading studies does not need it.
Colours keep apart for readers who do not see red and green (Okabe and Ito).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from msnode.errors import ConfigurationError
from msnode.evaluate.pictures import WITH_TRUTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.evaluate.calibration import Reliability
    from msnode.evaluate.pictures import Picture
    from msnode.evaluate.slices import SliceLevel
    from msnode.evaluate.volume import VolumeAgreement

INK, FAINT = "#24292f", "#d0d7de"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TRUTH, PREDICTED = "#00d0ff", "#ff8c1a"
_WIDTH = 8.6
"""Width of a full figure, inches."""
_LABELS = {"accuracy": "accuracy", "sensitivity": "sensitivity", "ppv": "PPV", "npv": "NPV"}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "msnode",  # the same figures give the same bytes
}


def loss_curves(loss: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Training (solid) and validation (dashed) loss of each fold against the epoch, SVG."""
    with _style():
        figure, (axes,) = _figure(1, 3.0)
        for colour, (fold, curves) in zip(_cycle(len(loss)), loss.items(), strict=True):
            for name, line in (("train", "-"), ("validation", "--")):
                values = curves.get(name, ())
                label = f"{fold.replace('_', ' ')}, {name}"
                axes.plot(range(1, len(values) + 1), values, line, color=colour, label=label, linewidth=1.2)
        axes.set(xlabel="epoch", ylabel="loss")
        figure.legend(loc="outside right upper")
        return _svg(figure)


def threshold_curves(slices: SliceLevel) -> bytes:
    """Slice level figures against the overlap that makes a true positive, by two readings, SVG."""
    titles = {"usual": "Usual definitions", "paper": "The paper's reading"}
    with _style():
        figure, panels = _figure(2, 3.1)
        x = np.array(slices.curve_thresholds) * 100
        for axes, (reading, title) in zip(panels, titles.items(), strict=True):
            for colour, (name, label) in zip(COLOURS, _LABELS.items(), strict=False):
                curve = slices.curves[reading][name]
                axes.plot(x, [_percent(e.value) for e in curve], color=colour, label=label)
                low, high = ([_percent(getattr(e, end)) for e in curve] for end in ("low", "high"))
                axes.fill_between(x, low, high, color=colour, alpha=0.10, linewidth=0)
            axes.axvline(slices.threshold * 100, color=INK, linewidth=0.8, linestyle=":")
            axes.set(
                title=title, xlabel="overlap with the expert's voxels of the slice, at least %", ylim=(0, 103)
            )
        panels[0].set_ylabel("%")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return _svg(figure)


def volumes(pairs: Sequence[tuple[float, float]], agreement: VolumeAgreement) -> bytes:
    """Predicted against expert volume, and their Bland-Altman plot, ml, SVG.

    Args:
        pairs: (expert, predicted) ml of each scan.
        agreement: bias and limits of the same scans.
    """
    expert, predicted = np.array(pairs, dtype=np.float64).T
    with _style():
        figure, (scatter, bland) = _figure(2, 3.3)
        top = max(expert.max(), predicted.max(), 0.1) * 1.08
        scatter.plot([0, top], [0, top], color=INK, linewidth=0.8, linestyle=":")
        scatter.scatter(expert, predicted, color=COLOURS[0], s=26, zorder=3)
        scatter.set(xlim=(0, top), ylim=(0, top), aspect="equal")
        scatter.set(title="Lesion volume", xlabel="expert, ml", ylabel="predicted, ml")
        bland.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        for estimate, name, style in (
            (agreement.upper_ml, "+1.96 SD", "--"),
            (agreement.bias_ml, "bias", "-"),
            (agreement.lower_ml, "-1.96 SD", "--"),
        ):
            if estimate.value is not None:
                bland.axhline(estimate.value, color=COLOURS[1], linestyle=style, linewidth=1.1)
                bland.annotate(
                    f"{name} {estimate.value:+.2f}", (1, estimate.value), xycoords=("axes fraction", "data"),
                    xytext=(-2, 2), textcoords="offset points", ha="right", color=COLOURS[1],
                )  # fmt: skip
        bland.scatter((expert + predicted) / 2, predicted - expert, color=COLOURS[0], s=26, zorder=3)
        bland.set(title="Bland-Altman", xlabel="mean of both, ml", ylabel="predicted - expert, ml")
        bland.margins(y=0.15)
        return _svg(figure)


def reliability_diagram(result: Reliability) -> bytes:
    """Share of true lesions against confidence, with the number of lesions below, SVG."""
    filled = [one for one in result.bins if one.count]
    with _style():
        figure = _new_figure((4.6, 4.3))
        diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        diagram.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        diagram.plot(
            [one.mean_confidence for one in filled], [one.share_true for one in filled],
            "o-", color=COLOURS[0], markersize=5,
        )  # fmt: skip
        diagram.set(ylabel="share that the expert marked", xlim=(0, 1), ylim=(0, 1.03))
        counts.bar(
            [one.low for one in result.bins], [one.count for one in result.bins],
            width=1 / len(result.bins), align="edge", color=COLOURS[5], edgecolor="white",
        )  # fmt: skip
        counts.set(xlabel="confidence of the lesion", ylabel="lesions")
        return _svg(figure)


def slices(pictures: Sequence[Picture]) -> bytes:
    """Slices of one scan, PNG: each plain above, with the contours of truth and prediction below."""
    columns = WITH_TRUTH if len(pictures) <= WITH_TRUTH else 4
    groups = [pictures[k : k + columns] for k in range(0, len(pictures), columns)]
    with _style():
        tall = max(p.image.shape[0] * p.aspect / p.image.shape[1] for p in pictures)
        width = _WIDTH / columns
        figure = _new_figure((_WIDTH, 2 * len(groups) * width * tall))
        figure.patch.set_facecolor("black")
        panels = figure.subplots(2 * len(groups), columns, squeeze=False)
        figure.subplots_adjust(0, 0, 1, 1, wspace=0.01, hspace=0.01)
        for axes in panels.flat:
            axes.set_axis_off()
        for g, group in enumerate(groups):
            for k, picture in enumerate(group):
                _draw(panels[2 * g, k], picture, contours=False)
                _draw(panels[2 * g + 1, k], picture, contours=True)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        return buffer.getvalue()


def paired(a: Sequence[float], b: Sequence[float], title: str, names: tuple[str, str]) -> bytes:
    """One line a scan from its figure with one bundle to its figure with the other, SVG."""
    with _style():
        figure = _new_figure((3.9, 3.2), layout="constrained")
        axes = figure.subplots()
        for left, right in zip(a, b, strict=True):
            colour = COLOURS[0] if right >= left else COLOURS[1]
            axes.plot([0, 1], [left, right], "o-", color=colour, linewidth=1, markersize=4)
        axes.set(title=title, xlim=(-0.25, 1.25))
        axes.set_xticks([0, 1], names)
        return _svg(figure)


def _draw(axes: Any, picture: Picture, *, contours: bool) -> None:
    axes.imshow(picture.image, cmap="gray", vmin=0, vmax=255, aspect=picture.aspect, interpolation="bilinear")
    if not contours:
        axes.text(
            0.02,
            0.98,
            f"slice {picture.number}",
            color="white",
            fontsize=7,
            va="top",
            transform=axes.transAxes,
        )
        return
    if picture.truth is not None:
        _outline(axes, picture.truth, TRUTH, 1.8)  # wider: seen on both sides where they agree
    _outline(axes, picture.predicted, PREDICTED, 0.9)


def _outline(axes: Any, mask: Any, colour: str, width: float) -> None:
    """The edges of the mask's voxels: what is in and what is out stays exact."""
    padded = np.pad(mask, 1).astype(np.int8)
    across = np.argwhere(np.diff(padded, axis=0)[:, 1:-1])  # between row i - 1 and i
    along = np.argwhere(np.diff(padded, axis=1)[1:-1])
    axes.hlines(across[:, 0] - 0.5, across[:, 1] - 0.5, across[:, 1] + 0.5, colour, linewidth=width)
    axes.vlines(along[:, 1] - 0.5, along[:, 0] - 0.5, along[:, 0] + 0.5, colour, linewidth=width)


def _cycle(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _percent(value: float | None) -> float:
    return float("nan") if value is None else value * 100


def _style() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - 0.3 s and no part of the core installation
    except ModuleNotFoundError as error:
        raise ConfigurationError("a report with figures needs matplotlib: install msnode[train]") from error
    return mpl.rc_context(_STYLE)


def _new_figure(size: tuple[float, float], **options: Any) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above; no pyplot, so no global state

    return Figure(figsize=size, **options)


def _figure(panels: int, height: float) -> tuple[Any, Any]:
    figure = _new_figure((_WIDTH, height), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata)
    return buffer.getvalue()
