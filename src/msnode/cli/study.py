"""`msnode study segment`: segments one study without a running node."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from msnode.cli.console import console, spinner
from msnode.cli.output import ConfigOption, JsonOption, fail, print_json
from msnode.errors import ConfigurationError, Rejected
from msnode.reading.read_job import read_folder
from msnode.reading.result_set import write_refusal
from msnode.segment.cache import user_cache
from msnode.settings import Preset, load_settings, with_preset
from msnode.wiring.reading import make_reader

_RESULT_FILE = "result.json"


def segment(
    path: Annotated[Path, typer.Argument(help="Folder with the DICOM files of one study.", exists=True)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result objects and result.json.")],
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="fast: one fold; standard: all folds; best: all folds and mirrored images. "
            "Default: as configured.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment the lesions of one study and write the result objects to a folder.

    Exit 1: the study cannot be read. The reason is on stderr and in result.json, and a rejection report is
    written too if all files belong to one study. Dates in the objects are the modification time of the
    newest input file, so the same input always gives the same objects.
    """
    settings = with_preset(load_settings(config), preset)
    _check_empty(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=".msnode-"))
    try:
        with spinner("segmenting"):
            try:
                result = read_folder(path, staging, partial(make_reader, settings, user_cache()))
            except Rejected as refusal:
                result = write_refusal(str(refusal), staging)
        _publish(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _report(result, out, as_json=as_json)


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"--out {out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / _RESULT_FILE).is_file():
        raise ConfigurationError(
            f"--out {out} contains files that are not from an earlier run; give an empty folder"
        )


def _publish(staging: Path, out: Path) -> None:
    """Move the files to `out`, replacing those of an earlier run."""
    out.mkdir(exist_ok=True)
    earlier = out / _RESULT_FILE
    if earlier.is_file():
        for name in json.loads(earlier.read_text(encoding="utf-8")).get("files", ()):
            (out / Path(name).name).unlink(missing_ok=True)
    for file in staging.iterdir():
        file.replace(out / file.name)


def _report(result: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    if result["status"] != "completed":
        raise typer.Exit(fail(f"rejected: {result['reason']}", code=1))
    if not as_json:
        volume = result["lesion_volume_mm3"] / 1000
        unsure = sum(lesion["low_confidence"] for lesion in result["lesions"])
        marked = f", {unsure} with low confidence" if unsure else ""
        console.print(
            f"{result['lesion_count']} lesions{marked}, {volume:.2f} ml; "
            f"{len(result['outputs'])} objects in {out}", soft_wrap=True,
        )  # fmt: skip
