"""Where a volume is worked on, by the memory that it takes, and that it takes that much."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.run import run_method
from lightning_mbir.methods.tasks import TASKS
from lightning_mbir.physics import (
    ConeBeam,
    FourierSampling,
    InSlabs,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    RealDomain,
    make_mask,
)
from lightning_mbir.physics.mri.coils import CHUNK
from lightning_mbir.prior import load_prior
from lightning_mbir.reconstruction import METHODS, memory, placement
from lightning_mbir.reconstruction.memory import needed_memory, told_memory
from lightning_mbir.reconstruction.placement import Work, device_bytes, placed, slab_size, slice_bytes, told_work
from lightning_mbir.reconstruction.runner import Runner
from tests.helpers import gaussian_prior, peak_bytes, smooth_volume
from tests.physics.mri.test_coil_maps import smooth_maps

GIB, SIZE = 2**30, 64
CARD = torch.device("cuda", 1)  # of which nothing is asked here but its name


def views(count: int, size: int = SIZE) -> ParallelBeam:
    return ParallelBeam(size, [k * 180.0 / count for k in range(count)])


def operators(depth: int) -> dict[str, LinearOperator]:
    mask = make_mask("gaussian1d", (SIZE, SIZE), 4)
    return {
        "few views": views(8),
        "many views": views(90),
        "magnitudes": RealDomain(FourierSampling(mask)),
        "complex": FourierSampling(mask),
        "coils": MultiCoilFourier(mask, smooth_maps(SIZE)),
        "maps by slice": MultiCoilFourier(mask, smooth_maps(SIZE).repeat(depth, 1, 1, 1)),
    }


@pytest.mark.parametrize(
    ("a_slice", "free", "depth", "slices"),
    [
        (1 << 20, 8 << 30, 600, 64),  # no more than is of use
        (1 << 20, 8 << 30, 20, 20),  # nor than there are
        (100 << 20, 8 << 30, 600, 20),  # a quarter of what is free
        (3 << 30, 8 << 30, 600, 1),
        (3 << 30, 0, 600, 1),
    ],
)
def test_a_slab_is_as_large_as_the_free_memory_lets_it(a_slice: int, free: int, depth: int, slices: int) -> None:
    assert slab_size(a_slice, free, depth) == slices


def test_a_volume_passes_where_the_device_has_no_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(METHODS["admm_tv"], views(8), 300)
    needed = placement.whole_bytes(work, CARD)
    assert needed is not None
    volume = 300 * SIZE**2 * 4
    assert needed > 11 * volume  # those of the method, and the truth
    for free, slabs in (
        (needed, None),
        (needed - 1, HostSlabs(CARD, 64)),
        (200 * slice_bytes(work), HostSlabs(CARD, 50)),
    ):
        monkeypatch.setattr(placement, "free_memory", lambda device, free=free: free)
        assert placed([work], CARD) == slabs
    assert placed([work], CARD, wanted=7) == HostSlabs(CARD, 7)
    assert placed([work], CARD, wanted=1000) == HostSlabs(CARD, 300)
    assert placed([Work(METHODS["fbp"], views(8), 300), work], CARD) == HostSlabs(CARD, 50)  # by what takes most


def test_coupled_slices_are_left_whole_and_refused_where_slabs_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 1000)
    cone = ConeBeam((4, 7, 7), [0.0, 40.0], source_distance=20.0, detector_distance=10.0)
    work = Work(METHODS["admm_tv"], cone, 2)
    assert work.depth == 4  # not that of its views
    assert placed([work], CARD) is None
    with pytest.raises(InputError, match="ConeBeam measures slices together"):
        placed([work], CARD, wanted=2)


@pytest.mark.parametrize("name", operators(1))
def test_a_slab_takes_what_was_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK, "cpu", 8 * SIZE**2)  # a small part of the slab
    depth = 40
    operator = operators(depth)[name]
    own = slice_bytes(Work(METHODS["cgls"], operator, depth)) * depth
    x = torch.rand(depth, SIZE, SIZE).to(operator.dtype)
    y = operator(x)
    operator.normal(x), operator.adjoint(y)  # what is made once
    brought = 0 if operator.separable else placement.held_bytes(operator)  # of which nothing is made here
    products = ((operator, x), (operator.adjoint, y), (operator.normal, x))
    peak = max(peak_bytes(lambda run=run, given=given: run(given.clone())) for run, given in products)
    assert peak + brought == pytest.approx(own, rel=0.2)


def whole_scan(operator: LinearOperator, depth: int) -> tuple[Work, HostSlabs, int]:
    """``dds`` with the bundled prior of CT on a GPU of 8 GiB: work, slabs, and what the host needs for it."""
    prior = load_prior("ct", slice_batch=16)
    work = Work(METHODS["dds"], operator, depth, [prior])
    slabs = HostSlabs(torch.device("cpu"), slab_size(slice_bytes(work), 8 * GIB, depth))
    host = needed_memory(work.method, InSlabs(operator, slabs), work.y)
    assert host is not None
    return work, slabs, host


def test_a_whole_scan_fits_a_host_of_24_and_a_device_of_8_gib() -> None:
    operator = views(8, 512)
    work, slabs, host = whole_scan(operator, 600)
    volume = 600 * 512**2 * 4
    # What is read and what is turned of a file, or the truth and the measurement beside the method, whichever is more.
    beside = max(2 * volume, volume + work.y.nbytes)
    assert slabs.slices == 64
    assert host + beside < 9 * GIB
    assert device_bytes(work, slabs) < 2 * GIB
    assert placement.whole_bytes(Work(work.method, operator, 600), CARD, weights=True) > 7 * GIB  # without


def test_what_was_told_of_a_volume_in_host_memory_is_taken() -> None:
    size, depth = 128, 160
    operator = views(8, size)
    y: Tensor = operator(smooth_volume((depth, size, size), 0.02))
    slabs, prior = HostSlabs(torch.device("cpu"), 32), gaussian_prior("ct", 4)

    def work(slices: int) -> None:
        run_method(y[:slices], operator, prior, "dds", steps=2, cg_iterations=5, host_slabs=slabs)

    work(8)  # what is made once
    taken = peak_bytes(lambda: work(depth))
    assert taken == pytest.approx(needed_memory(METHODS["dds"], InSlabs(operator, slabs), y), rel=0.2)


def test_both_memories_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 20 * GIB, "cuda": 7 * GIB}
    monkeypatch.setattr(memory, "free_memory", lambda device: free[device.type])
    assert told_memory(6 * GIB, CARD, GIB) == (
        "needs about 6.0 GiB of memory, 20.0 are free, and 1.0 GiB of cuda:1, 7.0 are free",
        False,
    )
    assert told_memory(6 * GIB, CARD, 8 * GIB) == (
        "needs about 6.0 GiB of memory, 20.0 are free, and 8.0 GiB of cuda:1, 7.0 are free; --data.image_size, "
        "--data.slices or more devices (--split slices) make it less",
        True,
    )
    assert told_memory(6 * GIB, CARD) == ("needs about 6.0 GiB of memory, 7.0 are free", False)
    work = Work(METHODS["admm_tv"], views(8), 40)
    y = torch.zeros(40, *work.operator.range_shape)
    assert told_work(work, y, None, HostSlabs(torch.device("cpu"), 8)) is None  # not worth a line


def test_the_rule_of_the_docs_is_that_of_the_program() -> None:
    text = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    assert f"a quarter of the device's free memory, and at most {placement.MOST}" in text
    assert placement.SHARE == 4
    assert f"{placement.TIMES} (v + m)" in text


def test_a_run_measures_and_reconstructs_in_slabs(caplog: pytest.LogCaptureFixture) -> None:
    task, plan = TASKS["sv_ct"], Plan("admm_tv", {}, 2)
    scan = Volume(smooth_volume((7, 32, 32), 0.02), np.eye(4), "ball", "ct")
    results = []
    for slices in (0, 3):
        runner = Runner(task, task.settings(views=8, photons=1e5), {}, 0, False, host_slices=slices, shown=False)
        with caplog.at_level(logging.INFO, "lightning_mbir"):
            case = runner.case(scan, [plan])
        results.append((case, runner.run(case, plan, "")))
    (one, whole), (other, slabs) = results
    assert one.host_slabs is None and other.host_slabs == HostSlabs(torch.device("cpu"), 3)
    told = "ball: the volume stays in host memory, and passes through cpu 3 of 7 slices at a time"
    assert caplog.messages.count(told) == 1
    torch.testing.assert_close(other.y, one.y)  # counts and all
    torch.testing.assert_close(slabs.volume, whole.volume)
    assert other.passing(False).at_once == 3


def test_numbers_of_slices_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"--model\.host_slices -1: give a whole number of at least 0"):
        Runner(TASKS["sv_ct"], {}, {}, 0, False, host_slices=-1)
    runner = Runner(TASKS["sv_ct"], {}, {}, 0, False, host_slices=2)
    with pytest.raises(InputError, match=r"--model\.host_slices 2: .*--split volumes"):
        runner.check_operators({32}, None, splits=True)
