#!/usr/bin/env python3
"""Fetch the OHIF build that this stack is made for, check it, and unpack it.

    python fetch_ohif.py FOLDER [--registry https://registry.npmjs.org]

Fills FOLDER with the build, and does nothing where it is there already. The package is taken only with the
digest written below. Needs nothing beyond Python's standard library; the node itself never fetches anything.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from base64 import b64decode
from io import BytesIO
from pathlib import Path

VERSION = "3.12.10"
SHA512 = "0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA=="
"""The registry's `integrity` of @ohif/app at VERSION, base64."""

_INSIDE = "package/dist/"
_TIMEOUT_S = 120


def fetched(registry: str) -> bytes:
    """The package as the registry has it.

    Raises:
        OSError: the registry does not answer, or has no such version.
        ValueError: it is not the package that was pinned.
    """
    url = f"{registry.rstrip('/')}/@ohif/app/-/app-{VERSION}.tgz"
    if not url.startswith("https://"):
        raise ValueError(f"{registry} is no https:// address")
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the scheme is checked above
        package: bytes = answer.read()
    if hashlib.sha512(package).digest() != b64decode(SHA512):
        raise ValueError(f"{url} is not the package that was pinned")
    return package


def unpack(package: bytes, folder: Path) -> None:
    """Put the build into `folder`, which is there only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        with tarfile.open(fileobj=BytesIO(package)) as archive:
            members = [member for member in archive if member.name.startswith(_INSIDE)]
            archive.extractall(temporary, members=members, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        build = Path(temporary) / _INSIDE
        (build / "VERSION").write_text(VERSION + "\n")
        build.rename(folder)


def is_there(folder: Path) -> bool:
    """Whether `folder` holds this build."""
    version = folder / "VERSION"
    return version.is_file() and version.read_text().strip() == VERSION


def main() -> None:
    """Fetch the build where it is missing."""
    parser = argparse.ArgumentParser(description=f"Fetch OHIF {VERSION}.")
    parser.add_argument("folder", type=Path, help="where the build shall lie")
    parser.add_argument(
        "--registry",
        default=os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org"),
        help="npm registry or a mirror of it",
    )
    arguments = parser.parse_args()
    if is_there(arguments.folder):
        return
    try:
        unpack(fetched(arguments.registry), arguments.folder)
    except (OSError, ValueError) as error:
        sys.exit(f"no OHIF build: {error}")


if __name__ == "__main__":
    main()
