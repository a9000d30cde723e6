"""One volume reconstructed and written, with its samples where there are several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.reconstruct import Reconstruction, reconstruct
from lightning_mbir.methods.samples import PosteriorSamples, Running
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.provenance import digest
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.writer import write_results, write_spread
from lightning_mbir.report.calibration import calibrate
from lightning_mbir.report.figures import Scale, calibration_figure
from lightning_mbir.report.montage import montage


def predict_volume(
    runner: Runner, scan: Volume | Measurement, case: Case, plan: Plan, folder: Path, title: str, config: str | None
) -> tuple[dict[str, Any], Tensor]:
    """Reconstruct one volume and write what ``docs/comparison.md`` and the README say into ``folder``.

    Returns:
        the metrics, and the image ``(Z, Y, X)``.
    """
    modality = runner.task.modality
    running, each = Running(), None
    if plan.samples > 1:
        running, each = _kept_samples(runner, scan, case, plan, folder / "samples")
    result = runner.run(case, plan, title, running, each)
    image = result.image
    metrics = runner.metrics(scan, case, plan, result)
    window = runner.window(image if case.truth is None else case.truth, case.calibrated)
    spread = None
    if isinstance(result, PosteriorSamples):
        metrics["samples"] = running.scores
        if case.truth is not None:
            calibration = calibrate(image, result.std, case.truth, result.samples)
            metrics["calibration"] = calibration.figures
            scale = Scale.of(modality, window, case.calibrated)
            spread = calibration_figure(calibration, image, result.std, case.truth, result.samples, case.spacing, scale)
    direct_name, direct_title = ("fbp", "FBP") if modality == "ct" else ("zero_filled", "zero-filled")
    if runner.task.operator is not None:  # of which no direct inversion is known
        direct_name, direct_title = "cgls", "least squares"
    direct = image
    if plan.method != direct_name:
        operator = case.operator(runner.takes_complex(plan))
        direct = reconstruct(case.y, operator, method=direct_name, modality=modality).image
    volume = placed(scan, image, case)
    titles = (direct_title, plan.method.rpartition(".")[2])
    scores = None if case.truth is None else metrics
    figure = montage(image, direct, case.truth, case.spacing, window, titles, scores)
    write_results(folder, volume, metrics, figure, config)
    if isinstance(result, PosteriorSamples):
        write_spread(folder, volume, result.std, spread)
    return metrics, image


def placed(scan: Volume | Measurement, image: Tensor, case: Case) -> Volume:
    """An image ``(Z, Y, X)`` where the scan lies, on the host."""
    if isinstance(scan, Volume):
        return scan.with_data(image.cpu())
    return Volume(image.cpu(), scan.affine, case.name, scan.modality, case.calibrated)


def _kept_samples(
    runner: Runner, scan: Volume | Measurement, case: Case, plan: Plan, folder: Path
) -> tuple[Running, Callable[[int, Reconstruction], None]]:
    """The samples that were written with the same settings, and what writes another.

    Mean and spread are kept beside the samples rather than read from these: files hold magnitudes, in HU where CT, from
    which a complex mean cannot be had, nor the very bits of a run that was not interrupted.
    """
    key = digest({**runner.identity(scan, plan), "samples": None})
    running = Running.load(folder / "running.npz", key, plan.samples, case.y.device)
    if running.count == 0:
        for old in folder.glob("sample_*.nii.gz"):  # of other settings
            old.unlink()

    def each(k: int, result: Reconstruction) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        volume = placed(scan, result.image, case)
        write_volume(folder / f"sample_{k:02d}.nii.gz", volume)
        work = {"nfe": result.nfe, "seconds": round(result.seconds, 3), "residual": result.residual}
        running.scores.append({"sample": k, **work, **runner.scores(case, result.image)})
        running.save(folder / "running.npz", key)

    return running, each
