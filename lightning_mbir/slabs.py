"""The slices of a volume that one of several processes holds, and the little that crosses from one to another.

What works slice by slice knows nothing of this. What does not asks here: sums over all voxels (``total``), largest
values (``largest``), the slices beside a slab (``widened``, ``window``), other cuts of the volume (``turned``), and
whole volumes at the end (``gathered``). Each of these is a collective: all processes of the volume have to come to it,
in the same order. Outside of ``holding`` there is one process, and each gives back what it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Num
from torch import Tensor

from lightning_mbir.errors import InputError

T = TypeVar("T")
Index = tuple[EllipsisType | slice, ...]
CHUNK = 2**16
"""Numbers a dot product or a sum of squares on a CPU: sums are in float32, which over a whole volume costs four digits,
in ``torch.linalg.vector_norm`` all of them."""
BLOCK = 2**24
"""Products at once on other devices."""
SMALL = 2**10
"""Numbers of a slice below which a CPU takes many at once, too: thousands of calls would cost more than the sums."""


def bounds(depth: int, ranks: int, rank: int) -> tuple[int, int]:
    """First slice of a process and the one after its last: ``depth`` slices, as evenly as can be."""
    each, more = divmod(depth, ranks)
    start = rank * each + min(rank, more)
    return start, start + each + (rank < more)


@dataclass(frozen=True)
class Slab:
    """Neighbouring slices of a volume.

    Attributes:
        depth: slices of the volume.
        rank: number of this process among those that share the volume, from foot to head.
        peers: the numbers of these among all processes.
        group: these; None where they are all there are.
    """

    depth: int
    rank: int = 0
    peers: tuple[int, ...] = (0,)
    group: Any = None

    @property
    def ranks(self) -> int:
        """How many processes share the volume."""
        return len(self.peers)

    @property
    def split(self) -> bool:
        """Whether there are others."""
        return self.ranks > 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def start(self) -> int:
        """The first slice."""
        return bounds(self.depth, self.ranks, self.rank)[0]

    @property
    def stop(self) -> int:
        """The one after the last slice."""
        return bounds(self.depth, self.ranks, self.rank)[1]

    @property
    def sizes(self) -> list[int]:
        """How many slices each process has."""
        return _sizes(self.depth, self.ranks)


WHOLE = Slab(0)
"""That one process has all slices."""
_held: list[Slab] = [WHOLE]


def current() -> Slab:
    """What this process holds of the volume that it works on."""
    return _held[-1]


@contextmanager
def holding(slab: Slab) -> Iterator[Slab]:
    """As long as the context, volumes and measurements are those of ``slab``."""
    _held.append(slab)
    try:
        yield slab
    finally:
        _held.pop()


def whole_only(what: str) -> None:
    """Raise ``InputError`` where a volume is shared, for what cannot do with a slab of it; ``what`` says why."""
    if current().split:
        raise InputError(f"{what}; give --split volumes, with no more devices than volumes")


def total(x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Sums of all processes, added up in double precision; the same bits for all, so that they go the same way."""
    slab = current()
    if not slab.split:
        return x
    wide = x.to(torch.float64, copy=True)
    dist.all_reduce(wide, group=slab.group)
    return wide.to(x.dtype)


def largest(x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """The largest value of all processes."""
    slab = current()
    if not slab.split:
        return x
    most = x.clone()
    dist.all_reduce(most, dist.ReduceOp.MAX, group=slab.group)
    return most


def every(fact: bool, device: torch.device) -> bool:
    """Whether something is so in all processes."""
    return not bool(largest(torch.tensor(float(not fact), device=device)))


def length(x: Num[Tensor, "*shape"]) -> float:
    """Euclidean norm of a volume or a measurement."""
    return float(total(own_inner(x, x)).sqrt())


def own_inner(u: Num[Tensor, "*shape"], v: Num[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Real part of ``<u, v>`` of what this process has, in double precision, to be added up by ``total``.

    A slice's sum does not depend on who has the slice, and those of all slices are added in double precision: so the
    number of processes changes next to no bit of it.
    """
    # Real and imaginary parts in a row: their dot product is the real part.
    real_u, real_v = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in (u, v))
    if u.ndim < 3:
        real_u, real_v = real_u[None], real_v[None]
    slice_size = real_u.numel() // max(1, len(real_u))
    if u.device.type != "cpu" or slice_size < SMALL:  # many slices in one go
        at_once = max(1, (CHUNK if u.device.type == "cpu" else BLOCK) // max(1, slice_size))
        blocks = zip(torch.split(real_u, at_once), torch.split(real_v, at_once), strict=True)
        return torch.cat([(a * b).flatten(1).sum(1) for a, b in blocks]).sum(dtype=torch.float64)
    sums = [
        torch.dot(a, b)
        for one, other in zip(real_u, real_v, strict=True)
        for a, b in zip(torch.split(one.reshape(-1), CHUNK), torch.split(other.reshape(-1), CHUNK), strict=True)
    ]
    return torch.stack(sums).sum(dtype=torch.float64)


class Widened:
    """A slab ``(..., Z, Y, X)``, which is numbered from 0, with the slice that lies below it as -1, and that above.

    Attributes:
        x: the slab.
        lowest, highest: where it begins with its neighbours, and the place after its end.
    """

    def __init__(self, x: Tensor, below: Tensor | None = None, above: Tensor | None = None) -> None:
        self.x, self.below, self.above = x, below, above
        self.lowest = -1 if below is not None else 0
        self.highest = (x.shape[-3] if x.ndim > 2 else 1) + (above is not None)

    def __getitem__(self, part: Index) -> Tensor:
        """Of ``(..., slice, :, :)`` the slices, without a copy where they lie inside; of ``(...,)`` the slab."""
        along = part[-3] if len(part) > 1 else None
        if not isinstance(along, slice):
            return self.x
        n = self.x.shape[-3]
        found = [self.x[..., max(along.start, 0) : min(along.stop, n), :, :]]
        if along.start < 0 and self.below is not None:
            found.insert(0, self.below)
        if along.stop > n and self.above is not None:
            found.append(self.above)
        return found[0] if len(found) == 1 else torch.cat(found, -3)


def widened(x: Num[Tensor, "*shape"], below: bool = True, above: bool = True) -> Widened:
    """A slab with the slices of its neighbours, as far as it has any.

    Args:
        x: ``(Z, Y, X)``.
        below, above: which of them are asked for; zeros stand for the other one.
    """
    slab = current()
    if not slab.split:
        return Widened(x)
    lower = torch.zeros_like(x[:1]) if slab.rank > 0 else None
    upper = torch.zeros_like(x[:1]) if slab.rank + 1 < slab.ranks else None
    ends = _real(x[-1:]).contiguous(), _real(x[:1]).contiguous()  # kept until they are sent
    ops = []
    if below and upper is not None:
        ops.append(dist.P2POp(dist.isend, ends[0], slab.peers[slab.rank + 1], slab.group))
    if below and lower is not None:
        ops.append(dist.P2POp(dist.irecv, _real(lower), slab.peers[slab.rank - 1], slab.group))
    if above and lower is not None:
        ops.append(dist.P2POp(dist.isend, ends[1], slab.peers[slab.rank - 1], slab.group))
    if above and upper is not None:
        ops.append(dist.P2POp(dist.irecv, _real(upper), slab.peers[slab.rank + 1], slab.group))
    for work in dist.batch_isend_irecv(ops) if ops else ():
        work.wait()
    return Widened(x, lower, upper)


def window(x: Num[Tensor, "*slab"], spans: Sequence[tuple[int, int]]) -> Num[Tensor, "*span"]:
    """The slices of the volume that a process asks for, whoever has them.

    Args:
        x: its slab.
        spans: of each process the first slice that it asks for and the one after the last, its own among them.
    """
    slab = current()
    if not slab.split:
        return x[slice(*spans[0])]
    first, last = spans[slab.rank]
    found = x.new_empty(last - first, *x.shape[1:])
    found[slab.start - first : slab.stop - first] = x
    ops, kept = [], []  # what is sent is kept until it has arrived
    for other, peer in enumerate(slab.peers):
        start, stop = bounds(slab.depth, slab.ranks, other)
        asked = slice(max(spans[other][0], slab.start) - slab.start, min(spans[other][1], slab.stop) - slab.start)
        taken = slice(max(first, start) - first, min(last, stop) - first)
        if other != slab.rank and asked.start < asked.stop:
            kept.append(_real(x[asked]).contiguous())
            ops.append(dist.P2POp(dist.isend, kept[-1], peer, slab.group))
        if other != slab.rank and taken.start < taken.stop:
            ops.append(dist.P2POp(dist.irecv, _real(found[taken]), peer, slab.group))
    for work in dist.batch_isend_irecv(ops) if ops else ():
        work.wait()
    return found


def with_ends(x: Num[Tensor, "*slab"], reach: int) -> tuple[Num[Tensor, "*wide"], int]:
    """A slab with ``reach`` slices more at either end, as far as the volume has them, and how many lie before it."""
    slab = current()
    if not slab.split or not reach:
        return x, 0
    own = [bounds(slab.depth, slab.ranks, rank) for rank in range(slab.ranks)]
    spans = [(max(0, start - reach), min(slab.depth, stop + reach)) for start, stop in own]
    return window(x, spans), slab.start - spans[slab.rank][0]


def turned(x: Num[Tensor, "y z x"]) -> Num[Tensor, "y z x"]:
    """Coronal slices ``(Y, Z, X)``, of all of which a process has some axial ones: some of them, whole instead."""
    slab = current()
    if not slab.split:
        return x
    parts = _sizes(len(x), slab.ranks)
    mine = parts[slab.rank]
    given = [block.contiguous() for block in torch.split(x, parts)]
    taken = [x.new_empty(mine, z, x.shape[2]) for z in slab.sizes]
    _all_to_all(taken, given, slab)
    return torch.cat(taken, 1)


def turned_back(x: Num[Tensor, "y z x"], height: int) -> Num[Tensor, "y z x"]:
    """The reverse of :func:`turned`; ``height`` is how many coronal slices there are."""
    slab = current()
    if not slab.split:
        return x
    mine = slab.stop - slab.start
    given = [block.contiguous() for block in torch.split(x, slab.sizes, 1)]
    taken = [x.new_empty(y, mine, x.shape[2]) for y in _sizes(height, slab.ranks)]
    _all_to_all(taken, given, slab)
    return torch.cat(taken)


def gathered(x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """The slices of all processes, on the host of the first one; the others get none."""
    slab = current()
    if not slab.split:
        return x
    if not slab.first:
        dist.send(_real(x).contiguous(), slab.peers[0], slab.group)
        return x[:0].cpu()
    whole = torch.empty((slab.depth, *x.shape[1:]), dtype=x.dtype)
    start = slab.stop
    whole[:start] = x.cpu()
    for peer, size in zip(slab.peers[1:], slab.sizes[1:], strict=True):
        part = x.new_empty(size, *x.shape[1:])
        dist.recv(_real(part), peer, slab.group)
        whole[start : start + size] = part.cpu()
        start += size
    return whole


def dealt(whole: Num[Tensor, "*shape"] | None, device: torch.device) -> Num[Tensor, "*shape"]:
    """The reverse of :func:`gathered`: to each process its slices of what the first one has."""
    slab = current()
    if not slab.split:
        assert whole is not None
        return whole
    shape, kind = of_all(None if whole is None else (tuple(whole.shape[1:]), whole.dtype))[0] or ((), torch.float32)
    if not slab.first:
        own = torch.empty(slab.stop - slab.start, *shape, dtype=kind, device=device)
        dist.recv(_real(own), slab.peers[0], slab.group)
        return own
    assert whole is not None
    parts = torch.split(whole, slab.sizes)
    for peer, part in zip(slab.peers[1:], parts[1:], strict=True):
        dist.send(_real(part).contiguous().to(device), peer, slab.group)
    return parts[0].clone().to(device)


def everywhere(x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """The slices of all processes, in all of them."""
    slab = current()
    if not slab.split:
        return x
    parts = [x if k == slab.rank else x.new_empty(size, *x.shape[1:]) for k, size in enumerate(slab.sizes)]
    for peer, part in zip(slab.peers, parts, strict=True):
        dist.broadcast(_real(part := part.contiguous()), peer, slab.group)
    return torch.cat(parts)


def from_first(value: T) -> T:
    """What the first process has, plain data, in all."""
    slab = current()
    if not slab.split:
        return value
    told: list[Any] = [value]
    dist.broadcast_object_list(told, slab.peers[0], slab.group)
    found: T = told[0]
    return found


def of_all(value: T) -> list[T]:
    """What each process has, plain data, in all."""
    slab = current()
    if not slab.split:
        return [value]
    told: list[Any] = [None] * slab.ranks
    dist.all_gather_object(told, value, slab.group)
    return told


def _sizes(depth: int, ranks: int) -> list[int]:
    return [stop - start for start, stop in (bounds(depth, ranks, rank) for rank in range(ranks))]


def _real(x: Tensor) -> Tensor:
    """Complex numbers as pairs of reals, which all backends send; the same memory."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _all_to_all(taken: Sequence[Tensor], given: Sequence[Tensor], slab: Slab) -> None:
    """To each process its block of ``given``; their blocks into ``taken``."""
    sent = torch.cat([_real(block).flatten() for block in given])
    got = sent.new_empty(sum(_real(block).numel() for block in taken))
    taken_sizes, given_sizes = ([_real(block).numel() for block in blocks] for blocks in (taken, given))
    dist.all_to_all_single(got, sent, taken_sizes, given_sizes, group=slab.group)
    for block, values in zip(taken, torch.split(got, taken_sizes), strict=True):
        _real(block).copy_(values.view_as(_real(block)))
