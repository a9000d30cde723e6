"""Metadata that depend on where the project is published: its addresses, and links of the README that PyPI can follow.

A checkout does not know where it lies. Who publishes tells it by the variable ``PROJECT_URL`` (of a repository on
GitHub), as ``.github/workflows/release.yml`` does; without it a package has no addresses, and the README as it stands.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    """Fills in ``readme`` and ``urls``, which ``pyproject.toml`` leaves open."""

    def update(self, metadata: dict[str, Any]) -> None:
        root, address = Path(self.root), os.environ.get("PROJECT_URL", "").rstrip("/")
        readme = (root / "README.md").read_text(encoding="utf-8")
        if address:
            version = (root / "lightning_mbir" / "version.py").read_text(encoding="utf-8").split('"')[-2]
            readme = absolute(readme, address, f"v{version}")
            metadata["urls"] = {
                "Homepage": address,
                "Documentation": f"{address}/tree/v{version}/docs",
                "Changelog": f"{address}/blob/v{version}/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}


def absolute(text: str, address: str, tag: str) -> str:
    """Links into the checkout as those of a repository at a tag; pictures as files.

    Args:
        text: Markdown.
        address: of the repository.
        tag: of the release.
    """
    text = re.sub(r"\]\(\.\./\.\./", rf"]({address}/", text)  # what GitHub has beside the files, such as badges
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{address}/raw/{tag}/", text)
    return re.sub(r"\]\((?!https?:|#)", rf"]({address}/blob/{tag}/", text)
