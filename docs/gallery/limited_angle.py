# %% [markdown]
# # What does a wedge without views cost?
#
# **The edges that no ray touches: FBP loses them, total variation puts them in the wrong place, the prior nearly in
# the right one.** Here no view lies beyond 90 degrees, as where an arm or a table is in the way.

# %% tags=["parameters"]
path = None  # "scan.nii.gz"; without one, a chest is drawn
slices, size = "14:18", 128
angle_range, views, steps = 90, 30, 20

# %%
from lightning_mbir import (
    TASKS,
    ParallelBeam,
    Place,
    Scale,
    VolumeDataModule,
    image_metrics,
    picture_window,
    reconstruct,
    volumes_figure,
)

volume = VolumeDataModule(path, modality="ct", image_size=size, slices=slices).scan(0)
truth = volume.data
angles = [i * angle_range / views for i in range(views)]
operator = ParallelBeam(size, angles, pixel_size=volume.spacing[1])
sinogram = operator(truth)

tuned = TASKS["la_ct"].options
results = {
    "FBP": reconstruct(sinogram, operator, method="fbp"),
    "ADMM-TV": reconstruct(sinogram, operator, method="admm_tv", steps=3 * steps, **tuned["admm_tv"]),
    "dds": reconstruct(sinogram, operator, "ct", "dds", steps=steps, volume=volume.name, **tuned["dds"]),
}
scores = {name: image_metrics(result.volume, truth, TASKS["la_ct"].data_range) for name, result in results.items()}
for name, result in results.items():
    print(f"{name:8} {scores[name]['axial']['psnr']:.1f} dB, data residual {result.residual:.1e}")

# %%
volumes_figure(
    f"{volume.name}, {views} views over {angle_range} degrees",
    {name: result.volume for name, result in results.items()},
    Place.of(truth, volume.affine),
    Scale.of("ct", picture_window(truth, "ct")),
    truth,
    scores,
)

# %% [markdown]
# An edge is seen by the rays that run along it (Quinto 1993), and the largest errors lie where there were none: along
# one diagonal of the chest, and hardly along the other.
#
# **What this cannot tell:** whether an edge that the prior has drawn there is true. The measurement says nothing of
# it, so neither the data residual nor [a choice by held-out views](../trust.md) can find it wrong.
