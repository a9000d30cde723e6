"""Milliseconds a slice of parallel-beam projections and their adjoints: ours against other packages.

    python benchmarks/projectors.py --threads 1 --repeats 3
    python benchmarks/projectors.py --cases 256x60 --packages sparse astra
    python benchmarks/projectors.py --geometries fan cone --clock cpu --repeats 7

All packages run in one process, by turns, and the least of the repeats counts, so that on a busy machine the ratios
hold better than the times. So does the processor's time (`--clock cpu`, with one thread) in place of wall time. Others
get fewer slices (`--others_batch`), for which they take the same time each. The gap is
`|<A x, y> - <x, A* y>| / <A x, y>` for uniform random `x` and `y` in float32. Packages that are not installed are left
out with a line. Prints a Markdown table, after the rates of the machine: `limit` is the time that the arithmetic of the
sparse product, 2 operations a non-zero entry, would take at the rate of a dense matrix product.

``--geometries`` takes fans (against ASTRA's and diffct's) and volumes (a cone beam, the same one view by view, a helix,
a gantry that wobbles, diffct's cone) instead. There the medians of the repeats count, and ratios are medians of those
of each turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, ModularBeam, ParallelBeam, helical_trajectory
from lightning_mbir.physics.ct.projectors.sparse import SparsePair

Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""Projection of ``(S, N, N)`` and adjoint; sinograms in whatever layout the package has."""


def ours(backend: Any) -> Callable[[int, list[float]], Pair]:
    def build(n: int, angles: list[float]) -> Pair:
        operator = ParallelBeam(n, angles, backend=backend)
        return operator, operator.adjoint

    return build


def deepinv(n: int, angles: list[float]) -> Pair:
    from deepinv.physics import Tomography

    operator = Tomography(angles=torch.tensor(angles), img_width=n, circle=False, normalize=False)
    return lambda x: operator.A(x[:, None]), lambda y: operator.A_adjoint(y)[:, 0]


def scikit_image(n: int, angles: list[float]) -> Pair:
    from skimage.transform import iradon, radon

    theta = np.array(angles)

    def adjoint(y: Tensor) -> Tensor:
        slices = [iradon(s.numpy(), theta, output_size=n, filter_name=None, circle=False) for s in y]
        return torch.from_numpy(np.stack(slices)) * (2 * len(angles) / np.pi)

    return lambda x: torch.from_numpy(np.stack([radon(s.numpy(), theta, circle=False) for s in x])), adjoint


def torchskradon(n: int, angles: list[float]) -> Pair:
    from torchskradon.functional import skradon

    theta = torch.tensor(angles)

    def adjoint(y: Tensor) -> Tensor:
        x = torch.zeros(len(y), 1, n, n, requires_grad=True)
        (out,) = torch.autograd.grad(skradon(x, theta, circle=False), x, y)
        return out[:, 0]

    return lambda x: skradon(x[:, None], theta, circle=False).detach(), adjoint


PACKAGES: dict[str, Callable[[int, list[float]], Pair]] = {
    "sparse": ours("sparse"),
    "matrix_free": ours("matrix_free"),
    "astra": ours("astra"),
    "deepinv": deepinv,
    "scikit-image": scikit_image,
    "torchskradon": torchskradon,
}


clock = time.perf_counter


def least(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def machine_rates(repeats: int) -> tuple[float, float]:
    """GFLOP/s of a dense product and GB/s of ``a = b + s c``, in float32."""
    a = torch.rand(1024, 1024)
    b, c = torch.rand(2**24), torch.rand(2**24)
    out = torch.empty_like(b)
    gemm = 2 * 1024**3 / least(lambda: a @ a, 5 * repeats) / 1e9
    return gemm, 3 * 4 * 2**24 / least(lambda: torch.add(b, c, alpha=2.0, out=out), 5 * repeats) / 1e9


def gap(pair: Pair, *shape: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, *shape, generator=generator)
    ax = pair[0](x)
    y = torch.rand(ax.shape, generator=generator).to(ax.dtype)
    left = (ax.double() * y.double()).sum()
    return float((left - (x.double() * pair[1](y).double()).sum()).abs() / left)


def run_case(n: int, views: int, packages: list[str], batch: int, others_batch: int, repeats: int, gemm: float) -> None:
    angles = [i * 180.0 / views for i in range(views)]
    work: dict[str, tuple[Pair, int]] = {}
    limit = float("nan")
    for name in packages:
        try:
            pair = PACKAGES[name](n, angles)
            pair[0](torch.rand(1, n, n))
        except (ImportError, InputError, RuntimeError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
            continue
        work[name] = pair, batch if name in ("sparse", "matrix_free") else others_batch
        if name == "sparse":
            projector = pair[0]._projector  # type: ignore[attr-defined]
            assert isinstance(projector, SparsePair)
            limit = 2 * projector.nnz / gemm / 1e6
    best: dict[str, list[float]] = {name: [float("inf")] * 2 for name in work}
    for _ in range(repeats):
        for name, (pair, slices) in work.items():
            x = torch.rand(slices, n, n)
            y = pair[0](x[:1]).expand(slices, *pair[0](x[:1]).shape[1:]).contiguous()
            for i, argument in enumerate((x, y)):
                best[name][i] = min(best[name][i], least(lambda f=pair[i], a=argument: f(a), 1) * 1e3 / slices)  # type: ignore[misc]
    reference = best.get("astra")
    for name, (forward, adjoint) in best.items():
        faster = f"{reference[0] / forward:.1f} / {reference[1] / adjoint:.1f}" if reference else "-"
        near = f"{forward / limit:.1f} / {adjoint / limit:.1f}" if name == "sparse" else "-"
        times = f"{forward:.3g} | {adjoint:.3g} | {gap(work[name][0], n, n):.0e}"
        print(f"| {n} x {views} | {name} | {times} | {faster} | {near} |", flush=True)


SCANNER: dict[str, Any] = {"source_distance": 595.0, "detector_distance": 490.6}
"""mm; the volume is 256 mm wide."""


DIFFCT = "diffct, PyTorch on the CPU"


def diffct(beam: str, shape: tuple[int, ...], views: int, detector: tuple[int, ...], spacing: float) -> Pair:
    """Lengths of rays in pixels (Siddon's), by its portable backend."""
    import diffct

    name = "circular_trajectory_2d_fan" if beam == "fan" else "circular_trajectory_3d"
    distances = SCANNER["source_distance"], SCANNER["source_distance"] + SCANNER["detector_distance"]
    trajectory = getattr(diffct, name)(views, *distances, device="cpu")
    sizes = {"detector_spacing": spacing, "voxel_spacing": 256 / shape[-1]}
    operator = diffct.Projector(trajectory, shape, detector, beam=beam, backend="torch", precision="float32", **sizes)
    return operator.project, operator.backproject


def fans(n: int, views: int) -> dict[str, Callable[[], tuple[Pair, tuple[int, ...]]]]:
    def build(backend: Any) -> tuple[Pair, tuple[int, ...]]:
        angles = [i * 360.0 / views for i in range(views)]
        operator = FanBeam(n, angles, **SCANNER, pixel_size=256 / n, backend=backend)
        return (operator, operator.adjoint), (n, n)

    def other() -> tuple[Pair, tuple[int, ...]]:
        like = FanBeam(n, [0.0], **SCANNER, pixel_size=256 / n)
        return diffct("fan", (n, n), views, (like.n_detectors,), like.detector_spacing), (n, n)

    ours = {name: lambda name=name: build(name) for name in ("sparse", "matrix_free", "astra")}  # type: ignore[misc]
    return {**ours, DIFFCT: other}


def volumes(n: int, views: int) -> dict[str, Callable[[], tuple[Pair, tuple[int, ...]]]]:
    """A volume of ``n^3`` voxels and a panel of ``1.5 n`` bins along each side, which sees all of it."""
    angles, bins, spacing = [i * 360.0 / views for i in range(views)], 3 * n // 2, (256 / n * 1.85,) * 2
    cone: dict[str, Any] = {**SCANNER, "detector_spacing": spacing}

    def modular(pitch: float, wobble: float, curved: bool = False) -> tuple[Pair, tuple[int, ...]]:
        turns = 3.0 if pitch else 1.0
        table = helical_trajectory([turns * angle for angle in angles], **cone, pitch=pitch)
        table[:, :6] += wobble * torch.randn(len(table), 6, dtype=torch.float64)
        tilt = wobble * torch.randn(len(table), 1, dtype=torch.float64).deg2rad()
        u, v = table[:, 6:9].clone(), table[:, 9:].clone()
        table[:, 6:9], table[:, 9:] = tilt.cos() * u + tilt.sin() * v, tilt.cos() * v - tilt.sin() * u
        options: dict[str, Any] = {"pixel_size": 256 / n, "detector": "curved" if curved else "flat"}
        operator = ModularBeam((n, n, n), table, detector_shape=(bins, bins), **options)
        return (operator, operator.adjoint), (n, n, n)

    def circle() -> tuple[Pair, tuple[int, ...]]:
        operator = ConeBeam((n, n, n), angles, **cone, detector_shape=(bins, bins), pixel_size=256 / n)
        return (operator, operator.adjoint), (n, n, n)

    return {
        "ConeBeam": circle,
        "ModularBeam, the same circle": lambda: modular(0.0, 0.0),
        "ModularBeam, helix, curved": lambda: modular(256 / 3, 0.0, True),
        "ModularBeam, wobbling by 1 mm and 1 degree": lambda: modular(0.0, 1.0),
        DIFFCT: lambda: (diffct("cone", (n, n, n), views, (bins, bins), spacing[0]), (n, n, n)),
    }


def run_geometry(kind: str, case: str, batch: int, others_batch: int, repeats: int) -> None:
    """A row for each package, and its ratio to the first."""
    n, views = map(int, case.split("x"))
    work: dict[str, tuple[Pair, Tensor, Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, build in (fans if kind == "fan" else volumes)(n, views).items():
        try:
            pair, shapes[name] = build()
        except (ImportError, InputError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
            continue
        slices = 1 if kind == "cone" else others_batch if name in ("astra", DIFFCT) else batch
        x = torch.rand(slices, *shapes[name])
        work[name] = pair, x, pair[0](x)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, (pair, x, y) in work.items():
            each = (least(lambda f=f, a=a: f(a), 1) / len(x) for f, a in zip(pair, (x, y), strict=True))  # type: ignore[misc]
            times[name].append(tuple(each))  # type: ignore[arg-type]
    first = np.array(next(iter(times.values())))
    for name, rows in times.items():
        own = np.array(rows)
        forward, adjoint = 1e3 * np.median(own, 0)
        ratios = np.median(own / first, 0)
        cells = f"{forward:.3g} | {adjoint:.3g} | {ratios[0]:.2f} / {ratios[1]:.2f}"
        print(f"| {kind} {case} | {name} | {cells} | {gap(work[name][0], *shapes[name]):.0e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["256x8", "256x60", "256x180", "512x180"], metavar="SIZExVIEWS")
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--geometries", nargs="+", default=[], choices=["fan", "cone"])
    parser.add_argument("--fan_case", default="256x60", metavar="SIZExVIEWS")
    parser.add_argument("--cone_case", default="96x24", metavar="SIZExVIEWS")
    parser.add_argument("--batch", type=int, default=64, help="slices of ours")
    parser.add_argument("--others_batch", type=int, default=2, help="slices of the others")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    if arguments.clock == "cpu":
        global clock
        clock = time.process_time
    torch.set_num_threads(arguments.threads)
    gemm, triad = machine_rates(arguments.repeats)
    rates = f"sgemm {gemm:.0f} GFLOP/s, triad {triad:.1f} GB/s"
    print(f"{arguments.threads} threads, {arguments.clock} time, {rates}, torch {torch.__version__}\n")
    if arguments.geometries:
        print("| case | operator | A, ms | A*, ms | time over the first, A / A* | gap |\n|---|---|---|---|---|---|")
        for kind in arguments.geometries:
            case = arguments.fan_case if kind == "fan" else arguments.cone_case
            run_geometry(kind, case, arguments.batch, arguments.others_batch, arguments.repeats)
        return
    print("| case | package | A, ms | A*, ms | gap | times ASTRA | time over limit |\n|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        n, views = map(int, case.split("x"))
        run_case(n, views, arguments.packages, arguments.batch, arguments.others_batch, arguments.repeats, gemm)


if __name__ == "__main__":
    main()
