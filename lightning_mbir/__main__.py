"""``python -m lightning_mbir``."""

from lightning_mbir.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
