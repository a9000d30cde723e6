# %% [markdown]
# # What if the object is nothing that a prior has seen?
#
# **Take total variation: with the options of chests, `dds` fits the noise of a tooth, whichever prior it has.** The
# projections are measured; a fifth of the views is kept, and what all of them give is the reference.
#
# The tooth is TomoPy's example (University of Chicago Argonne): 181 views of a parallel beam, with flat and dark
# fields, as synchrotrons write it. The file does not come with the package; without it a scan is simulated, and the
# first line of the output says so.

# %% tags=["parameters"]
path = "tooth_parallel_projections.h5"  # yours: Data Exchange, or an array with its geometry
size = 192  # pixels of a slice; None where the file says it
views, steps = 36, 20

# %%
from pathlib import Path

import numpy as np
import torch

from lightning_mbir import (
    TASKS,
    MeasurementOptions,
    ParallelBeam,
    Place,
    Scale,
    VolumeDataModule,
    image_metrics,
    measured_operator,
    part_of,
    picture_window,
    poisson_counts,
    read_measurement,
    reconstruct,
    volumes_figure,
)


def simulated(size: int = 128, photons: float = 1e4) -> str:
    """A file with projections of a slice of a drawn chest, with the noise of counted photons."""
    chest = VolumeDataModule(modality="ct", image_size=size, slices="16:17").scan(0)
    angles = np.arange(180.0)
    pixel = chest.spacing[1]
    sinogram = ParallelBeam(size, angles.tolist(), pixel_size=pixel)(chest.data)
    noisy = poisson_counts(sinogram, photons, generator=torch.Generator().manual_seed(0)).y
    np.savez("simulated.npz", measurement=noisy.numpy(), angles=angles, image_size=size, pixel_size=pixel)
    return "simulated.npz"


if not Path(path).is_file():
    print(f"no file {path}: a simulated scan of a drawn chest, 1e4 photons a ray")
    path, size = simulated(), None
options = MeasurementOptions(image_size=size or 0, slices=(0, 1))
measurement = read_measurement(path, "ct", options)
for note in measurement.notes:
    print(note)

# %% [markdown]
# The file has no place for the size of a bin, so attenuation is per bin, and what is 1 in the prior's unit is told by
# the measurement (`calibrated=False`).

# %%
calibrated = measurement.calibrated
everything = reconstruct(
    measurement.y, measured_operator(measurement), method="fbp", filter="hann", calibrated=calibrated
).volume
part = part_of(measurement, views=views)
operator = measured_operator(part)
task = TASKS["sv_ct"]
runs = {
    "FBP": ("fbp", None, None),
    "ADMM-TV": ("admm_tv", None, 3 * steps),
    "dds, chests": ("dds", "ct", steps),
    "dds, no anatomy": ("dds", "generic", steps),
}
results = {
    name: reconstruct(
        part.y, operator, prior, method, steps=n, calibrated=calibrated, **task.tuned(method, noisy=True, views=views)
    )
    for name, (method, prior, n) in runs.items()
}
window = picture_window(everything, "ct", calibrated)
scores = {name: image_metrics(result.volume, everything, window[1]) for name, result in results.items()}
for name, result in results.items():
    print(f"{name:16} {scores[name]['axial']['psnr']:.1f} dB, data residual {result.residual:.3f}")

# %%
volumes_figure(
    f"{measurement.name}, {views} views",
    {"all views": everything, **{name: result.volume for name, result in results.items()}},
    Place.of(everything, measurement.affine, sided=False, sized=calibrated),
    Scale.of("ct", window, calibrated),
    metrics=scores,
)

# %% [markdown]
# **What this cannot tell:** how much of a difference is noise of the reference, which is no truth, and whether `dds`
# with other options would do better. Without a reference, ask the measurement: `method="auto"` searches both by views
# that are [held out](../trust.md), and warns where a prior is out of its depth.
