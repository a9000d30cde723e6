"""Fixtures that every room's tests share."""

from pathlib import Path
from typing import Any

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; the test is skipped, saying so, where it is not."""
    if not SHARED.is_dir():
        pytest.skip("no folder ../shared with real data beside the checkout")
    return SHARED


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Gaussian prior in place of the bundled ones."""

    from tests.helpers import gaussian_prior

    def load(
        source: object,
        modality: Any,
        complex: bool = False,
        slice_batch: int | None = 16,
        precision: str = "",
        compile: bool = False,
    ) -> Any:
        return gaussian_prior(modality, slice_batch, complex)

    monkeypatch.setattr("lightning_mbir.reconstruction.module.load_task_prior", load)
