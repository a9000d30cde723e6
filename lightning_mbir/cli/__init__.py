"""The command line: ``python -m lightning_mbir``."""

from lightning_mbir.cli.front import main

__all__ = ["main"]
