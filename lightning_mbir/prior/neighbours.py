"""Which slices of a volume a prior of three neighbouring ones denoises together."""

from __future__ import annotations

import hashlib
import struct

import torch
from torch import Tensor

from lightning_mbir.slabs import bounds, current


def neighbours(n: int, sigma: float, wide: bool | None = None) -> tuple[Tensor, Tensor, int]:
    """Triples of slices that cover a stack of ``n`` of them once, as DiffusionBlend++ does (Song et al. 2024,
    arXiv 2406.10211).

    They are three that lie beside each other or, for half of the noise levels, every third one of blocks of nine, and
    begin at another slice from level to level. Which of it is keyed by the level alone: a call can be repeated, in
    whatever batches, and levels that are apart by anything at all differ as if by chance.

    Args:
        n: slices of the stack, at least 3.
        sigma: the noise level.
        wide: whether three slices apart; None: by the level, where there are nine slices.

    Returns:
        Places ``(G, 3)``, a mask ``(G, 3)`` of which of them count (each slice of the stack once: at the ends of a
        stack triples overlap), and how many slices apart they are.
    """
    key = int.from_bytes(hashlib.blake2b(struct.pack("<d", sigma), digest_size=8).digest(), "little")
    step = 3 if (bool(key & 1) if wide is None else wide) and n >= 9 else 1
    block = 3 * step
    first = (key >> 1) % min(block, n - block + 1)
    starts = list(range(first, n - block + 1, block))
    covered = starts[-1] + block
    # a block that begins where the stack does, for what lies before the first, and one that ends where it does
    blocks = [(0, range(first)), *((start, range(start, start + block)) for start in starts)]
    blocks.append((n - block, range(covered, n)))
    places, counts = [], []
    for start, wanted in blocks:
        for i in range(start, start + step):
            triple = [i, i + step, i + 2 * step]
            if any(place in wanted for place in triple):
                places.append(triple)
                counts.append([place in wanted for place in triple])
    return torch.tensor(places), torch.tensor(counts), step


def own_neighbours(
    depth: int, sigma: float, back: bool = False
) -> tuple[Tensor, Tensor, int, list[tuple[int, int]], slice]:
    """The triples that a process denoises for the slices that it has: those that have one of them.

    Where a triple lies across slabs each of their processes denoises it, since that takes one exchange instead of two.

    Args:
        depth: slices of the volume, of which the process has a slab, or all.
        sigma: the noise level.
        back: for the derivative, to which every triple adds that has seen one of the slices.

    Returns:
        As ``neighbours``, with places in the span of slices that these triples have; the spans of all processes, first
        slice and the one after the last; and where in its span the process has its own slices.
    """
    places, counts, step = neighbours(depth, sigma)
    slab, spans, mine = current(), list[tuple[int, int]](), []
    for rank in range(slab.ranks):
        start, stop = bounds(depth, slab.ranks, rank)
        inside = (places >= start) & (places < stop)
        wanted = counts if back else counts & inside
        taken = (inside if back else wanted).any(1)
        spans.append((min(start, int(places[taken].min())), max(stop, int(places[taken].max()) + 1)))
        mine.append((taken, wanted, start, stop))
    taken, wanted, start, stop = mine[slab.rank]
    first = spans[slab.rank][0]
    return places[taken] - first, wanted[taken], step, spans, slice(start - first, stop - first)
