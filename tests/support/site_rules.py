"""Routing rules of a site, and settings that name them."""

from msnode.settings import FolderDestination, NodeSettings, Settings

RULES = """
[[rules]]
name = "sagittal 3D"
preset = "best"
[rules.when.geometry]
plane = "sagittal"
acquisition = "3d"

[[rules]]
name = "urgent"
read = true
bundle = "other"
preset = "fast"
priority = "stat"
destinations = ["research"]
[rules.when]
calling_ae = "ER"
tags = { RequestedProcedurePriority = "STAT" }

[[rules]]
name = "never"
read = false
[rules.when]
calling_ae = "NOBODY"
"""


def settings_with(folder, rules=RULES):
    path = folder / "routing.toml"
    path.write_text(rules)
    there = tuple(FolderDestination(type="folder", name=n, path=folder / n) for n in ("pacs", "research"))
    return Settings(node=NodeSettings(data_dir=folder, routing=path), destinations=there)
