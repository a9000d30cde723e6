"""Fixtures that every room's tests share, and one thread for each of the workers that pytest-xdist starts."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported, and for whatever processes the tests start: the workers share out the cores, and sums over
# another number of threads are rounded in another way.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# A job in the background of a script starts with SIGINT ignored, and so does what it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from datetime import timedelta

import hypothesis
import jaxtyping
import pytest
import torch
from torch import Tensor

from lightning_mbir.data import phantoms
from lightning_mbir.prior.training.evaluate import generate
from tests import shapes

torch.set_num_threads(1)

# tests/fuzz: the same inputs at each run; many more, and others, with --hypothesis-profile thorough.
hypothesis.settings.register_profile(
    "default", max_examples=60, derandomize=True, database=None, deadline=timedelta(seconds=30)
)
hypothesis.settings.register_profile(
    "thorough", max_examples=2000, database=None, deadline=timedelta(seconds=30), print_blob=True
)
hypothesis.settings.load_profile("default")

SHARED = Path(__file__).resolve().parents[2] / "shared"
MOST_WORKERS = 8  # each has imported torch, Lightning and MONAI: about 1 GB


def pytest_xdist_auto_num_workers() -> int | None:
    """A worker for each core that this process may use: xdist counts physical cores, whoever may use them."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


@pytest.fixture(autouse=True, scope="session")
def callers() -> Iterator[None]:
    """Warnings point at the same line as without the wrappers that check shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", shapes.warn)
        yield


@pytest.fixture(autouse=True)
def stood_in_for(request: pytest.FixtureRequest) -> None:
    """For the operators of the registry that are by torch_radon, a stand-in for that package, on the CPU."""
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and str(parameters.params.get("name")).endswith("torch_radon"):
        request.getfixturevalue("torch_radon_stand_in")


@pytest.fixture
def torch_radon_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package torch_radon, which needs a GPU."""
    from lightning_mbir.physics.ct.projectors import torch_radon as backend
    from tests.physics.ct import fake_torch_radon

    monkeypatch.setitem(sys.modules, "torch_radon", fake_torch_radon)
    monkeypatch.setattr(backend, "on_gpu", lambda device: device.type in fake_torch_radon.GPU)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a GPU where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    return torch.device(request.param)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes are not checked: what does so is not made for ``torch.compile``."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers whatever ran before."""
    torch.manual_seed(0)


def once(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that works each of its results out once, and gives copies of it."""
    drawn = functools.cache(draw)
    return lambda *args, **options: drawn(*args, **options).clone()


@pytest.fixture(scope="session", autouse=True)
def phantoms_are_drawn_once() -> Iterator[None]:
    """The phantoms that data modules take, which need a second each, are drawn once a worker."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("chest_phantom", "head_phantom"):
            draw = once(getattr(phantoms, name))
            for user in ("slices.reading", "volumes.datamodule"):
                patch.setattr(f"lightning_mbir.data.{user}.{name}", draw)
        yield


@pytest.fixture(scope="session", autouse=True)
def samples_of_trainings_are_short() -> Iterator[None]:
    """Trainings draw samples after each validation and at their end: here in 3 steps, of 5 evaluations, for 24."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_mbir.prior.training.watch.generate", functools.partial(generate, steps=3))
        yield


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
        network: str | None = None,
    ) -> Any:
        return gaussian_prior(modality, slice_batch, complex)

    monkeypatch.setattr("lightning_mbir.reconstruction.module.load_task_prior", load)
