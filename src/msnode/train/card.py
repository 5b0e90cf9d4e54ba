"""The model card: what a reader must know before trusting a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.train.recipe import TrainingRecipe

_COLUMNS = ("dice", "ppv", "sensitivity", "iou", "lesion_f1", "lesion_sensitivity", "lesion_ppv")
_PURPOSE = {
    "lesions": "Segments multiple sclerosis lesions in FLAIR. A second reader, not a medical device.",
    "brain": "Finds brain and ventricles in FLAIR, to strip the skull before lesions are segmented.",
}

_TEMPLATE = """# {bundle.name} {bundle.version}

{purpose}

## Network

nnU-Net 2D (PlainConvUNet), features {features}, patch {patch}, {recipe.dataset.folds} folds disjoint by
patient whose logits are averaged. Training recipe `{recipe.name}`, preprocessing recipe
`{recipe.preprocess}`; {training.pretraining_epochs} epochs of pretraining on {recipe.synthetic.scans}
synthetic scans, then {training.epochs} epochs a fold, of {training.iterations_per_epoch} iterations each,
batch {training.batch}; {share:.0%} of the slices drawn are synthetic. {definition}

## Scope

Acquisition plane {scope.plane}; slice distance {distance} mm. Real scans in training: {field}; {vendors}.
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
        evaluation: as `train.validation` makes it; empty where nothing was held out yet.
    """
    scope, bundle = recipe.bundle.scope, recipe.bundle
    lesion = f"A lesion is probability >= {bundle.threshold} and at least {bundle.min_volume_mm3:g} mm3."
    return _TEMPLATE.format(
        purpose=_PURPOSE[recipe.dataset.target],
        recipe=recipe,
        bundle=bundle,
        training=recipe.training,
        scope=scope,
        share=recipe.synthetic.share if recipe.synthetic.scans else 0,
        definition=lesion if recipe.dataset.target == "lesions" else "",
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
    rows = {**evaluation["cases"], "mean": evaluation["mean"]}
    if "dice" in evaluation["mean"]:
        head = [*(name.replace("_", " ") for name in _COLUMNS), "lesions / expert", "ml / expert"]
        cells = [score_cells(name, scores, _COLUMNS) for name, scores in rows.items()]
    else:
        keys = list(evaluation["mean"])
        head = [key.replace("_", " ") for key in keys]
        cells = [[name, *(f"{scores[key]:.3f}" for key in keys)] for name, scores in rows.items()]
    table = [_line(["case", *head]), "|---" * (len(head) + 1) + "|", *map(_line, cells)]
    return "\n".join([evaluation["protocol"], "", *table, "", f"Command: `{evaluation['command']}`"])


def score_cells(name: str, scores: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """One table row: the case, the named shares, lesions found / expert, ml found / expert."""
    figures = ["-" if scores[c] is None else f"{scores[c]:.3f}" for c in columns]
    counts = f"{scores['predicted_count']:g} / {scores['truth_count']:g}"
    volumes = f"{scores['predicted_ml']:.1f} / {scores['truth_ml']:.1f}"
    return [name, *figures, counts, volumes]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
