"""`msnode model export`: converts a bundle to an nnU-Net model folder. Requires torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msnode.cli.output import ConfigOption
from msnode.preprocess import recipes
from msnode.segment.bundle import find_bundle, load_bundle
from msnode.settings import load_settings
from msnode.train.export import export_nnunet
from msnode.wiring.model import bundle_folders


def export(
    nnunet: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    bundle: Annotated[
        str | None,
        typer.Argument(help="NAME, NAME@VERSION or a bundle folder. Default: the configured bundle."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Export a bundle's networks as an nnU-Net model folder.

    Plain nnunetv2 loads the folder (nnUNetv2_predict_from_modelfolder). This command requires torch.
    """
    settings = load_settings(config)
    loaded = load_bundle(
        find_bundle(bundle or settings.model.bundle, bundle_folders(settings)), recipes.names()
    )
    typer.echo(str(export_nnunet(loaded.path, nnunet)))
