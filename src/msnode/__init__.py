"""msnode: receives brain MR, segments multiple sclerosis lesions in FLAIR, returns SEG, SR and overlay."""

from importlib.metadata import version

__version__ = version("msnode")
