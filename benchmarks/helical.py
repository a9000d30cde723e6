"""A helical scan of the chest phantom with a curved detector, few views a turn, by SIRT, ADMM-TV and `dds`.

    python benchmarks/helical.py --output docs/figures

Three turns at pitch 1 (36 mm a turn, as much as the twelve rows see at the axis) around 24 slices of 128 x 128 pixels,
24 views a turn, counting noise of 100 000 photons a ray. Draws `helical.png` and prints a table. With `--circle` the
same rays on a circle, which cannot see the end slices whole, stand beside it.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_mbir import ModularBeam, chest_phantom, helical_trajectory, image_metrics, poisson_counts, reconstruct
from lightning_mbir.methods.tasks import MODEL_ERROR, TASKS
from lightning_mbir.report.figures import comparison_figure
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import Place, middle_planes

SHAPE, WIDTH, THICKNESS = (24, 128, 128), 350.0, 3.0
SOURCE, DETECTOR = 595.0, 490.6
"""mm from the axis, as of a clinical scanner."""
ROWS, COLUMNS = 12, 136
PHOTONS = 1e5
METHODS: dict[str, dict[str, Any]] = {
    "sirt": {"steps": 50},
    "admm_tv": {"steps": 30, "cg_iterations": 10, "lam": 3e-5, "rho": 6e-4},
    "dds": {"steps": 15, "cg_iterations": 10, "eta": 0.2, "lam": 3.7e-5, "rho": 3.3e-3, "sigma_max": 1.4},
}
"""With the options of few views with noise, in fewer steps."""


def scan(turns: int, views: int, circle: bool) -> ModularBeam:
    """The operator; rows and columns are those of the voxels, magnified."""
    magnification = (SOURCE + DETECTOR) / SOURCE
    count = turns * views
    table = helical_trajectory(
        [i * 360.0 / views for i in range(count)],
        source_distance=SOURCE,
        detector_distance=DETECTOR,
        detector_spacing=(THICKNESS * magnification, WIDTH / SHAPE[1] * magnification),
        pitch=0.0 if circle else ROWS * THICKNESS,
    )
    return ModularBeam(
        SHAPE,
        table,
        detector_shape=(ROWS, COLUMNS),
        pixel_size=WIDTH / SHAPE[1],
        slice_thickness=THICKNESS,
        detector="curved",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--views", type=int, default=24, help="a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=3, help="of the phantom")
    parser.add_argument("--circle", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    truth = chest_phantom(SHAPE, seed=args.seed)
    operator = scan(args.turns, args.views, args.circle)
    noisy = poisson_counts(operator(truth), PHOTONS, generator=torch.Generator().manual_seed(0))
    weights = noisy.weights / (1 + noisy.weights * MODEL_ERROR**2)
    peak = TASKS["sv_ct"].data_range
    assert peak is not None
    print("| method | PSNR | axial PSNR | axial SSIM | data residual | seconds |\n|---|---|---|---|---|---|")
    results = []
    for method in args.methods:
        start = time.perf_counter()
        given = METHODS[method] if method == "sirt" else {**METHODS[method], "weights": weights}
        found = reconstruct(noisy.y, operator, method=method, modality="ct", **given)
        seconds = time.perf_counter() - start
        scores = image_metrics(found.volume, truth, peak)
        axial = scores["axial"]
        cells = f"{scores['volume_psnr']:.2f} | {axial['psnr']:.2f} | {axial['ssim']:.3f} | {found.residual:.4f}"
        print(f"| {method} | {cells} | {seconds:.0f} |", flush=True)
        results.append(({"method": method, **scores}, middle_planes(found.volume)))
    spacing = (THICKNESS, WIDTH / SHAPE[1], WIDTH / SHAPE[1])
    affine = np.diag([*spacing[::-1], 1.0])
    kind = "circle" if args.circle else f"helix of pitch {ROWS * THICKNESS:g} mm"
    title = f"chest phantom, {args.turns} turns of {args.views} views, {kind}, {PHOTONS:g} photons"
    scale = Scale.of("ct", picture_window(truth, "ct"))
    figure = comparison_figure(title, truth, results, Place.of(truth, affine), scale)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / ("helical_circle.png" if args.circle else "helical.png")
    figure.savefig(path, dpi=100, facecolor="black")
    reach = SHAPE[0] * THICKNESS / 2 + math.ceil(ROWS / 2) * THICKNESS
    print(
        f"{path}; the source went over {args.turns * ROWS * THICKNESS:g} mm, slices and half a turn need {2 * reach:g}"
    )


if __name__ == "__main__":
    main()
