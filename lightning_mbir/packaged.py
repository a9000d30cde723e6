"""Files that ship with the package: inside it in a wheel, beside it in a checkout."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def packaged(name: str) -> Path:
    """``configs`` or ``LightningCLI.yaml``, or something below, wherever the package lies."""
    inside = PACKAGE / name
    return inside if inside.exists() else PACKAGE.parent / name
