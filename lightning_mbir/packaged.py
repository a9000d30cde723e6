"""Files that ship with the package: inside it in a wheel, beside it in a checkout."""

from pathlib import Path

from lightning_mbir.errors import InputError

PACKAGE = Path(__file__).resolve().parent


def packaged(name: str) -> Path:
    """``configs`` or ``LightningCLI.yaml``, or something below, wherever the package lies."""
    inside = PACKAGE / name
    return inside if inside.exists() else PACKAGE.parent / name


def config_file(name: str | Path) -> Path:
    """A configuration: a file, or the name of one of ours, such as ``prior_ct``.

    Raises:
        InputError: neither.
    """
    if Path(name).exists():
        return Path(name)
    shipped = packaged("configs") / f"{str(name).removesuffix('.yaml')}.yaml"
    if not shipped.exists():
        known = ", ".join(sorted(path.stem for path in packaged("configs").glob("*.yaml")))
        raise InputError(f"no such file, and no configuration of ours ({known})")
    return shipped
