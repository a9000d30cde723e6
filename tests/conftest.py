"""Fixtures that every room's tests share."""

from pathlib import Path

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
