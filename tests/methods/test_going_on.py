"""A reconstruction that was stopped goes on: every method, to the same bits, in other slabs to rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_mbir.checkpointing import StateFolder
from lightning_mbir.methods.samples import Running, reconstruct_samples
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.samplers import SamplerState
from lightning_mbir.slabs import Slab, gathered, holding
from tests.helpers import GaussianPrior, gaussian_prior, smooth_volume
from tests.methods.test_split import CASES, DEPTH, STEPS, run
from tests.ranks import on_ranks

LAST = 4
"""The step after which a run of six is stopped; what is kept is the state before it."""
ITERATIVE = [case for case in CASES if case[0] not in STEPS and case != ("cgls", "masks")]  # which one step solves
OF_A_PRIOR = {"dds": 1, "diffpir": 1, "pula": 1, "tpdm": 1, "diffusion_mbir": 2, "score_slices": 2, "dps": 2, "mcg": 2}
"""Runs of the network a level."""


class Stopped(Exception):
    pass


class Steps:
    """A callback that notes the steps, and stops a run after one of them."""

    def __init__(self, last: int = -1) -> None:
        self.last, self.seen = last, list[int]()

    def __call__(self, state: SamplerState) -> None:
        self.seen.append(state.step)
        if state.step == self.last:
            raise Stopped


def keeping(folder: Path) -> StateFolder:
    """What keeps the state at every step."""
    return StateFolder(folder / "state", {"seed": 0}, "a" * 64, 1e-9, "v", tell=lambda line: None)


def stop(method: str, kind: str, folder: Path, part: slice | None = None, **more: Any) -> None:
    with pytest.raises(Stopped):
        run(method, kind, folder, part, checkpoint=keeping(folder), callback=Steps(LAST), **more)


@pytest.mark.parametrize(("method", "kind"), ITERATIVE)
def test_every_method_goes_on_to_the_same_bits(
    method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = GaussianPrior.forward
    monkeypatch.setattr(GaussianPrior, "forward", lambda self, *given: calls.append(1) or forward(self, *given))
    whole = run(method, kind, tmp_path)
    of_all = len(calls)
    stop(method, kind, tmp_path)
    (kept,) = (tmp_path / "state").iterdir()
    assert f"-{LAST - 1}-0of1" in kept.name
    calls.clear()
    steps = Steps()
    result = run(method, kind, tmp_path, checkpoint=keeping(tmp_path), callback=steps)
    assert torch.equal(result.volume, whole.volume) and result.nfe == whole.nfe
    assert steps.seen == [LAST, 5, 6]
    assert of_all - len(calls) >= (LAST - 1) * OF_A_PRIOR.get(method, 0)


def test_dds_goes_on_with_all_that_it_keeps(tmp_path: Path) -> None:
    options = {"momentum": 0.3, "warm_start": 0.9, "preconditioner": 0.5, "mirror": True}
    whole = run("dds", "ct", tmp_path, **options)
    stop("dds", "ct", tmp_path, **options)
    result = run("dds", "ct", tmp_path, checkpoint=keeping(tmp_path), **options)
    assert torch.equal(result.volume, whole.volume)
    assert not torch.equal(whole.volume, run("dds", "ct", tmp_path).volume)


def whole_kept(folder: Path, ranks: int) -> None:
    """A whole set of files: of each rank one, of one step."""
    names = sorted(path.name for path in folder.iterdir())
    assert [name.split("-", 2)[2] for name in names] == [f"{LAST - 1}-{k}of{ranks}.safetensors" for k in range(ranks)]


def stopped_in_slabs(folder: Path, cases: list[tuple[str, str]]) -> None:
    slab = Slab(DEPTH, dist.get_rank(), tuple(range(dist.get_world_size())))
    for method, kind in cases:
        with holding(slab):
            (folder / method / kind).mkdir(parents=True, exist_ok=True)
            stop(method, kind, folder / method / kind, slice(slab.start, slab.stop))
        dist.barrier()


def gone_on_in_slabs(folder: Path, cases: list[tuple[str, str]]) -> list[tuple[torch.Tensor, list[int]]]:
    slab, found = Slab(DEPTH, dist.get_rank(), tuple(range(dist.get_world_size()))), []
    for method, kind in cases:
        own, steps = folder / method / kind, Steps()
        with holding(slab):
            part = slice(slab.start, slab.stop)
            result = run(method, kind, own, part, checkpoint=keeping(own), callback=steps)
            found.append((gathered(result.volume), steps.seen))
    return found


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_on_another_number_of_devices_to_rounding(before: int, after: int, tmp_path: Path) -> None:
    if before == 1:
        for method, kind in ITERATIVE:
            (tmp_path / method / kind).mkdir(parents=True)
            stop(method, kind, tmp_path / method / kind)
    else:
        on_ranks(stopped_in_slabs, tmp_path, before, ITERATIVE)
    for method, kind in ITERATIVE:
        whole_kept(tmp_path / method / kind / "state", before)
    if after > 1:
        found = on_ranks(gone_on_in_slabs, tmp_path / "", after, ITERATIVE)[0]
    for k, (method, kind) in enumerate(ITERATIVE):
        own, whole = tmp_path / method / kind, run(method, kind, tmp_path)
        if after == 1:
            steps = Steps()
            volume, seen = run(method, kind, own, checkpoint=keeping(own), callback=steps).volume, steps.seen
        else:
            volume, seen = found[k]
        error = float(torch.linalg.vector_norm(volume - whole.volume) / torch.linalg.vector_norm(whole.volume))
        assert error < 1e-5 and seen == [LAST, 5, 6], (method, kind, error, seen)


def test_a_start_that_is_past_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop("dds", "ct", tmp_path)  # which starts from ADMM-TV
    starts = []
    monkeypatch.setattr("lightning_mbir.methods.dds._start", lambda p, name: starts.append(name))
    run("dds", "ct", tmp_path, checkpoint=keeping(tmp_path))
    assert starts == []
    run("dds", "ct", tmp_path)
    assert starts == ["admm_tv"]


def test_samples_each_go_on(tmp_path: Path) -> None:
    operator = ParallelBeam(24, [i * 20.0 for i in range(9)], pixel_size=2.0)
    y = operator(smooth_volume((DEPTH, 24, 24)))
    given: dict[str, Any] = {"method": "dds", "steps": 6, "samples": 2}
    whole = reconstruct_samples(y, operator, gaussian_prior("ct"), **given)

    class Second(Steps):
        def __call__(self, state: SamplerState) -> None:
            self.seen.append(state.step)
            if len(self.seen) == 6 + LAST:
                raise Stopped

    running = Running()
    with pytest.raises(Stopped):
        reconstruct_samples(
            y, operator, gaussian_prior("ct"), **given, running=running, checkpoint=keeping(tmp_path), callback=Second()
        )
    assert running.count == 1
    (kept,) = (tmp_path / "state").iterdir()
    assert f"-1-{LAST - 1}-0of1" in kept.name  # of the second
    steps = Steps()
    result = reconstruct_samples(
        y, operator, gaussian_prior("ct"), **given, running=running, checkpoint=keeping(tmp_path), callback=steps
    )
    assert torch.equal(result.volume, whole.volume) and torch.equal(result.std, whole.std)
    assert steps.seen == [LAST, 5, 6] and result.nfe == whole.nfe
