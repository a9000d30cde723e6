"""What crosses from one process to another is what one process would have."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_mbir import slabs
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.methods.units import _percentile
from lightning_mbir.physics import Difference
from lightning_mbir.samplers.noise import KeyedNoise
from lightning_mbir.slabs import WHOLE, Slab, bounds, holding, turned, turned_back, whole_only, widened
from lightning_mbir.solvers.conjugate_gradient import inner
from tests.ranks import on_ranks

SHAPE = (7, 5, 6)


def volume(seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_length_of_millions_of_values_loses_nothing_to_single_precision(dtype: torch.dtype) -> None:
    # torch.linalg.vector_norm of these is 4 % too small, of four times as many complex ones half of what it should be.
    x = torch.full((64, 512, 512), 0.3, dtype=dtype)
    assert slabs.length(x) == pytest.approx(float(x[0, 0, 0].abs()) * x.numel() ** 0.5, rel=1e-4)
    assert slabs.length(x.transpose(0, 2)) == pytest.approx(slabs.length(x), rel=1e-4)
    assert slabs.length(x[0, 0]) == pytest.approx(0.3 * 512**0.5, rel=1e-4)


def primitives(folder: Path) -> dict[str, Any]:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    slab = Slab(SHAPE[0], rank, tuple(range(ranks)))
    x, d = volume(0)[slab.start : slab.stop], volume(1)[slab.start : slab.stop]
    found: dict[str, Any] = {}
    with holding(slab):
        operator = Difference(tuple(x.shape), "z").double()  # type: ignore[arg-type]
        found["inner"] = inner(x, d)
        found["largest"] = slabs.largest(x.abs().max())
        found["length"] = slabs.length(x)
        found["difference"] = slabs.gathered(operator(x))
        found["transpose"] = slabs.gathered(operator.adjoint(d))
        found["norm"] = operator.norm()
        found["gathered"] = slabs.gathered(x)
        found["everywhere"] = slabs.everywhere(x.real)
        found["dealt"] = slabs.dealt(volume(2) if slab.first else None, x.device)
        found["turned"] = turned(x.transpose(0, 1))
        found["back"] = turned_back(found["turned"], SHAPE[1])
        found["percentile"] = [_percentile(x.real), _percentile(x.to(torch.complex64))]
        found["noise"] = KeyedNoise(first=slab.start)(3, x.shape, dtype=torch.complex64)
        found["every"] = [slabs.every(True, x.device), slabs.every(rank != 1, x.device)]
        found["objects"] = slabs.from_first(rank), slabs.of_all(rank)
        beside = widened(x, above=False)
        spans = [(max(0, bounds(SHAPE[0], ranks, k)[0] - k), SHAPE[0]) for k in range(ranks)]  # others each, and far
        found["window"] = slabs.window(x, spans)
        found["ends"] = slabs.with_ends(x, 2)
        found["beside"] = beside.below, beside.above, beside[..., beside.lowest : beside.highest, :, :]
        with holding(WHOLE):
            found["alone"] = inner(x, d), slabs.gathered(x)
    return found


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_primitives(ranks: int, tmp_path: Path) -> None:
    x, d, whole = volume(0), volume(1), Difference(SHAPE, "z").double()
    for rank, found in enumerate(on_ranks(primitives, tmp_path, ranks)):
        start, stop = bounds(SHAPE[0], ranks, rank)
        torch.testing.assert_close(found["inner"], inner(x, d))
        assert found["largest"] == x.abs().max() and found["norm"] == pytest.approx(whole.norm(), rel=1e-4)
        assert found["length"] == pytest.approx(float(torch.linalg.vector_norm(x)))
        for name, expected in (("difference", whole(x)), ("transpose", whole.adjoint(d)), ("gathered", x)):
            assert torch.equal(found[name], expected if rank == 0 else expected[:0])
        assert torch.equal(found["everywhere"], x.real)
        assert torch.equal(found["dealt"], volume(2)[start:stop])
        first, last = bounds(SHAPE[1], ranks, rank)
        assert torch.equal(found["turned"], x.transpose(0, 1)[first:last])
        assert torch.equal(found["back"], x.transpose(0, 1)[:, start:stop])
        assert found["percentile"] == [magnitude_percentile(x.real), magnitude_percentile(x.to(torch.complex64))]
        assert torch.equal(found["noise"], KeyedNoise()(3, SHAPE, dtype=torch.complex64)[start:stop])
        assert found["every"] == [True, False]
        assert found["objects"] == (0, list(range(ranks)))
        below, above, beside = found["beside"]
        assert (below is None) == (rank == 0) and (above is None) == (rank == ranks - 1)
        assert torch.equal(beside[: stop - max(start - 1, 0)], x[max(start - 1, 0) : stop])
        assert above is None or not above.any()  # was not asked for
        assert torch.equal(found["window"], x[max(0, start - rank) :])
        ends, before = found["ends"]
        assert before == min(2, start) and torch.equal(ends, x[start - before : stop + 2])
        torch.testing.assert_close(found["alone"][0], inner(x[start:stop], d[start:stop]))
        assert torch.equal(found["alone"][1], x[start:stop])


def test_slices_are_shared_evenly() -> None:
    for depth, ranks in ((7, 3), (8, 4), (5, 5)):
        parts = [bounds(depth, ranks, rank) for rank in range(ranks)]
        assert [k for start, stop in parts for k in range(start, stop)] == list(range(depth))
        assert max(stop - start for start, stop in parts) - min(stop - start for start, stop in parts) <= 1


def test_one_process_asks_nobody() -> None:
    x = volume(0)
    with holding(Slab(SHAPE[0])):
        assert slabs.gathered(x) is x and slabs.total(x) is x and slabs.everywhere(x) is x
        assert slabs.window(x, [(2, 4)]).data_ptr() == x[2:].data_ptr() and slabs.with_ends(x, 3) == (x, 0)
        assert widened(x)[..., 2:4, :, :].data_ptr() == x[2:4].data_ptr()  # no copy
        whole_only("this")


def test_what_needs_whole_volumes_is_refused() -> None:
    with holding(Slab(SHAPE[0], 0, (0, 1))), pytest.raises(InputError, match="wavelets; give --split volumes"):
        whole_only("wavelets")
    assert slabs.current() is WHOLE
