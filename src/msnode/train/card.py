"""The model card: what a reader must know before trusting a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.train.recipe import TrainingRecipe

_COLUMNS = ("dice", "ppv", "sensitivity", "iou", "lesion_f1", "lesion_sensitivity", "lesion_ppv")

_TEMPLATE = """# {bundle.name} {bundle.version}

Segments multiple sclerosis lesions in FLAIR. A second reader, not a medical device.

## Network

nnU-Net 2D (PlainConvUNet), features {features}, patch {patch}. Training recipe `{recipe.name}`, preprocessing
recipe `{recipe.preprocess}`; {training.epochs} epochs of {training.iterations_per_epoch} iterations, batch
{training.batch}. A lesion is probability >= {bundle.threshold} and at least {bundle.min_volume_mm3:g} mm3.

## Scope

Acquisition plane {scope.plane}; slice distance {distance} mm. Seen in training: {field}; {vendors}.
Other scanners and protocols are untested ground: expect lower figures there.

## Figures on held-out patients

{figures}

## Licence and attribution

Weights: {bundle.licence}. {bundle.attribution}
"""


def model_card(recipe: TrainingRecipe, evaluation: Mapping[str, Any]) -> str:
    """Markdown text.

    Args:
        recipe: the training recipe.
        evaluation: as `train.session` makes it; empty where nothing was held out yet.
    """
    scope = recipe.bundle.scope
    return _TEMPLATE.format(
        recipe=recipe,
        bundle=recipe.bundle,
        training=recipe.training,
        scope=scope,
        features=", ".join(map(str, recipe.network.features)),
        patch=" x ".join(map(str, recipe.network.patch)),
        distance="-".join(f"{d:g}" for d in scope.slice_distance_mm),
        field=", ".join(f"{t:g} T" for t in scope.field_strength_t),
        vendors=", ".join(scope.manufacturers),
        figures=_figures(evaluation),
    )


def _figures(evaluation: Mapping[str, Any]) -> str:
    if not evaluation:
        return "None recorded."
    head = ["case", *(name.replace("_", " ") for name in _COLUMNS), "lesions / expert", "ml / expert"]
    rows = [
        _row(name, scores) for name, scores in {**evaluation["cases"], "mean": evaluation["mean"]}.items()
    ]
    table = [_line(head), "|---" * len(head) + "|", *rows]
    return "\n".join([evaluation["protocol"], "", *table, "", f"Command: `{evaluation['command']}`"])


def _row(name: str, scores: Mapping[str, Any]) -> str:
    return _line(score_cells(name, scores, _COLUMNS))


def score_cells(name: str, scores: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """One table row: the case, the named shares, lesions found / expert, ml found / expert."""
    figures = ["-" if scores[c] is None else f"{scores[c]:.3f}" for c in columns]
    counts = f"{scores['predicted_count']:g} / {scores['truth_count']:g}"
    volumes = f"{scores['predicted_ml']:.1f} / {scores['truth_ml']:.1f}"
    return [name, *figures, counts, volumes]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
