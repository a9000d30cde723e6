"""Time and peak memory of one ADMM-TV_z step: ours against a direct transcription of the published algorithm.

    python benchmarks/admm_step.py --cases ct_8 ct_60 mri --slices 64 256 --threads 1

Ours is the step that the samplers take after every noise level: `admm_tv` with a kept state and a known right-hand
side. The transcription follows the equations of DiffusionMBIR (Chung et al., CVPR 2023, algorithm 1) one by one, each
with a fresh tensor: the back-projection of the measurement, the residual at the current volume, one step of conjugate
gradients (Hestenes and Stiefel 1952) with all its vectors, the split and the dual variable. Both use the same operator
and end the differences at the last slice. They run in one process, by turns, so that a busy machine slows both; the
ratio is the median of those of the turns. Both make the same steps, and the largest difference of their volumes is
printed, relative to the largest value. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lightning_mbir.physics import FourierSampling, LinearOperator, ParallelBeam, make_mask
from lightning_mbir.solvers import ADMMState, admm_tv

SIZE = 256
RHO, LAM = 0.026, 1.04e-4
CASES: dict[str, Callable[[], LinearOperator]] = {
    "ct_8": lambda: ParallelBeam(SIZE, [i * 180 / 8 for i in range(8)]),
    "ct_60": lambda: ParallelBeam(SIZE, [i * 180 / 60 for i in range(60)]),
    "mri": lambda: FourierSampling(make_mask("gaussian1d", (SIZE, SIZE), 4)),
}


def d_z(x: Tensor) -> Tensor:
    return torch.cat([x[1:] - x[:-1], torch.zeros_like(x[:1])])


def d_z_adjoint(d: Tensor) -> Tensor:
    return torch.cat([-d[:1], d[:-2] - d[1:-1], d[-2:-1]])


def soft_threshold(v: Tensor, threshold: float) -> Tensor:
    return torch.sgn(v) * torch.clamp(v.abs() - threshold, min=0)


def dot(u: Tensor, v: Tensor) -> Tensor:
    return torch.sum(u.conj() * v).real


def published_step(
    x: Tensor, z: Tensor, w: Tensor, y: Tensor, operator: LinearOperator, rho: float, lam: float
) -> tuple[Tensor, Tensor, Tensor]:
    def normal(v: Tensor) -> Tensor:
        return operator.adjoint(operator(v)) + rho * d_z_adjoint(d_z(v))

    b = operator.adjoint(y) + rho * d_z_adjoint(z - w)
    r = b - normal(x)
    p = r.clone()
    rr = dot(r, r)
    q = normal(p)
    alpha = rr / dot(p, q)
    x = x + alpha * p
    r = r - alpha * q
    p = r + dot(r, r) / rr * p  # the direction of a second step: part of the iteration as published
    z = soft_threshold(d_z(x) + w, lam / rho)
    w = w + d_z(x) - z
    return x, z, w


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes alive at once, less those before.

    On a CPU the profiler tells every allocation and release of torch's allocator, in order, with those inside of an
    operation; the peak is the largest partial sum. What is kept from before, such as the input, is not counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def measure(name: str, slices: int, device: torch.device, turns: int) -> str:
    operator = CASES[name]().to(device)
    operator = operator / operator.norm()
    generator = torch.Generator().manual_seed(0)
    # Smooth in a slice, with steps along z: differences below and above the threshold.
    truth = torch.rand(slices, 8, 8, generator=generator).repeat_interleave(32, 1).repeat_interleave(32, 2)
    y = operator((truth + 0.01 * torch.randn(truth.shape, generator=generator)).to(device, operator.dtype))
    rhs = operator.adjoint(y)
    x, z, w = rhs, torch.zeros_like(rhs), torch.zeros_like(rhs)
    our_x, state = x, None
    for _ in range(3):  # from the fourth step on, all variables are in use
        x, z, w = published_step(x, z, w, y, operator, RHO, LAM)
        our_x, state = admm_tv(None, operator, rho=RHO, lam=LAM, x0=our_x, state=state, rhs=rhs)
    error = float((our_x - x).abs().max() / x.abs().max())
    assert state is not None
    kept: ADMMState = state

    def ours() -> object:
        return admm_tv(None, operator, rho=RHO, lam=LAM, x0=our_x, state=kept, rhs=rhs, overwrite_state=True)

    def theirs() -> object:
        return published_step(x, z, w, y, operator, RHO, LAM)

    volume = rhs.numel() * rhs.element_size()
    peaks = [peak_bytes(run, device) / volume for run in (ours, theirs)]
    pairs = [(seconds(ours, device), seconds(theirs, device)) for _ in range(turns)]
    our_ms, their_ms = (1e3 * statistics.median(t) / slices for t in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return (
        f"| {name} | {slices} | {our_ms:.2f} | {their_ms:.2f} | {ratio:.1f} | {peaks[0]:.1f} | {peaks[1]:.1f} "
        f"| {error:.0e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--slices", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| case | slices | ours, ms a slice | published | ratio | peak, volumes | published | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.cases:
        for slices in args.slices:
            print(measure(name, slices, torch.device(args.device), args.turns), flush=True)


if __name__ == "__main__":
    main()
