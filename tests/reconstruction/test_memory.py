"""Peak memory of a piece of work, by the kernel's mark and by sampling; what a reconstruction is told to take."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mbir.methods.run import run_method
from lightning_mbir.physics import FourierSampling, LinearOperator, MultiCoilFourier, ParallelBeam, RealDomain
from lightning_mbir.physics.mri.coils import CHUNK
from lightning_mbir.physics.mri.masks import make_mask
from lightning_mbir.prior import load_prior
from lightning_mbir.reconstruction import METHODS, memory
from lightning_mbir.reconstruction.memory import PeakMemory, needed_memory, told_memory
from lightning_mbir.solvers.admm_tv import SLAB
from tests.helpers import gaussian_prior, peak_bytes, smooth_volume
from tests.physics.mri.test_coil_maps import smooth_maps

MIB = 2**20
pytestmark = pytest.mark.skipif(not memory.STATUS.exists(), reason="memory is measured where there is /proc")


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "sampled"])
def test_what_is_taken_and_given_back_counts(kernel: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not kernel:
        monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "none")
    held = torch.ones(40 * MIB // 4)
    with PeakMemory(torch.device("cpu")) as first:
        for _ in range(5):
            taken = torch.ones(64 * MIB // 4) + held.sum()
            taken *= 1.5
        del taken
    with PeakMemory(torch.device("cpu")) as second:
        pass
    assert first.bytes is not None and second.bytes is not None
    assert 60 * MIB < first.bytes < 200 * MIB
    assert second.bytes < 10 * MIB


def test_without_proc_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "none")
    with PeakMemory(torch.device("cpu")) as peak:
        pass
    assert peak.bytes is None


SIZE = 48


def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked on at a time is as small a part of the volume as of large ones."""
    monkeypatch.setitem(SLAB, "cpu", 4 * SIZE**2)
    monkeypatch.setitem(CHUNK, "cpu", 8 * SIZE**2)
    monkeypatch.setattr("lightning_mbir.methods.numbers.PART", 4 * SIZE**2)
    monkeypatch.setattr("lightning_mbir.solvers.preconditioner.AT_ONCE", 4 * SIZE**2)


KINDS = ("few views", "many views", "magnitudes", "coils", "weights")


def problem(kind: str) -> tuple[LinearOperator, Tensor, Tensor | None]:
    mask = make_mask("gaussian1d", (SIZE, SIZE), 4)
    operator: LinearOperator
    if kind == "magnitudes":
        operator = RealDomain(FourierSampling(mask))
    elif kind == "coils":
        operator = MultiCoilFourier(mask, smooth_maps(SIZE))
    else:
        operator = ParallelBeam(
            SIZE, [k * 180.0 / 60 for k in range(60 if kind == "many views" else 8)], pixel_size=3.0
        )
    operator.norm()
    x = smooth_volume((64, SIZE, SIZE), 0.02 if operator.range_dtype.is_floating_point else 1.0)
    y = operator(x.to(operator.dtype))
    return operator, y, torch.rand_like(y) if kind == "weights" else None


CASES = [
    (name, kind)
    for name, method in METHODS.items()
    for kind in KINDS
    if method.memory is not None
    and ("mri" if kind in ("magnitudes", "coils") else "ct") in method.modalities
    and (kind == "coils" or "coil_maps" not in method.needs)
    and (kind != "weights" or method.weighted)
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_run_takes_what_was_told(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pieces(monkeypatch)
    operator, y, weights = problem(kind)
    method, modality = METHODS[name], "ct" if kind in ("few views", "many views", "weights") else "mri"
    prior = gaussian_prior(modality, 4, operator.domain_complex)  # type: ignore[arg-type]
    given = {"second_prior": prior} if "second_prior" in method.needs else {}
    told = needed_memory(method, operator, y, [prior] if method.needs_prior else [], weights)
    assert told is not None

    def work() -> None:
        run_method(
            y, operator, prior, name, modality=modality, weights=weights, steps=3 if method.steps else None, **given
        )  # type: ignore[arg-type]

    work()  # what is made once
    assert peak_bytes(work) == pytest.approx(told, rel=0.2)


@pytest.mark.parametrize("kind", ["few views", "coils"])
def test_dds_takes_what_was_told_with_all_that_it_can_keep(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pieces(monkeypatch)
    operator, y, _ = problem(kind)
    modality = "mri" if kind == "coils" else "ct"
    prior = gaussian_prior(modality, 4, operator.domain_complex)  # type: ignore[arg-type]
    told = needed_memory(METHODS["dds"], operator, y, [prior], None)
    options = {"momentum": 0.25, "warm_start": 0.95, "preconditioner": 0.75, "mirror": True}

    def work() -> None:
        run_method(y, operator, prior, "dds", modality=modality, steps=3, **options)  # type: ignore[arg-type]

    work()
    assert peak_bytes(work) == pytest.approx(told, rel=0.2)


def test_a_network_takes_what_was_told() -> None:
    prior = load_prior("ct", slice_batch=4)
    x = torch.zeros(9, 64, 64)
    prior(x, 1.0)
    taken = peak_bytes(lambda: prior(x, 1.0))
    assert taken < prior.bytes_for(x.shape, "cpu") < 1.5 * taken
    with torch.inference_mode():  # as of ``predict``
        loaded = load_prior("ct", slice_batch=4)
        assert loaded.bytes_for(x.shape, "cpu", gradients=True) > 2 * loaded.bytes_for(x.shape, "cpu")
    assert 3 * prior.bytes_for((2, 64, 64), "cpu") == 2 * prior.bytes_for(x.shape, "cpu")  # 3, 3 and 3 of the nine


def test_what_will_be_taken_is_told_where_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 12 << 30)
    cpu = torch.device("cpu")
    assert told_memory(100 * MIB, cpu) is None
    assert told_memory(3 << 30, cpu) == ("needs about 3.0 GiB of memory, 12.0 are free", False)
    line, lacking = told_memory(13 << 30, cpu) or ("", False)
    assert lacking and line == (
        "needs about 13.0 GiB of memory, 12.0 are free; --data.image_size, --data.slices or more devices "
        "(--split slices) make it less"
    )


def test_the_table_of_the_docs_is_that_of_the_methods() -> None:
    lines = (Path(__file__).parents[2] / "docs/scale.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[lines.index("| method | v | m | s |") + 2 :]]
    table = {row[0].strip("`"): tuple(map(float, row[1:])) for row in rows if len(row) == 4}
    assert table == {name: method.memory for name, method in METHODS.items() if method.memory is not None}
