# %% [markdown]
# # What is left of a chest after eight X-ray views?
#
# **Total variation gives the outlines back, the slice prior the organs; filtered back-projection gives streaks.** All
# three get the same eight projections of the same slices. Only `dds` has seen other chests before.
#
# A volume of yours goes in place of `None`: NIfTI, a DICOM folder, or whatever else [is read](../volumes.md).

# %% tags=["parameters"]
path = None  # "scan.nii.gz"; without one, a chest is drawn
slices, size = "10:22", 128
views, steps = 8, 20  # the command line takes 50 steps

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
truth = volume.data  # (Z, Y, X), attenuation in 1/mm
operator = ParallelBeam(size, [i * 180 / views for i in range(views)], pixel_size=volume.spacing[1])
sinogram = operator(truth)  # (Z, views, bins)
print(f"{volume.name}: {tuple(truth.shape)}, measured {tuple(sinogram.shape)}")

# %% [markdown]
# Every method has the same call. `TASKS["sv_ct"]` has the options that were tuned for eight views, on scans.

# %%
tuned = TASKS["sv_ct"].options
results = {
    "FBP": reconstruct(sinogram, operator, method="fbp", **tuned["fbp"]),
    "ADMM-TV": reconstruct(sinogram, operator, method="admm_tv", steps=3 * steps, **tuned["admm_tv"]),
    "dds": reconstruct(sinogram, operator, "ct", "dds", steps=steps, volume=volume.name, **tuned["dds"]),
}
scores = {name: image_metrics(result.volume, truth, TASKS["sv_ct"].data_range) for name, result in results.items()}
for name, result in results.items():
    print(f"{name:8} {scores[name]['axial']['psnr']:.1f} dB, data residual {result.residual:.1e}")

# %%
volumes_figure(
    f"{volume.name}, {views} views",
    {"ground truth": truth, **{name: result.volume for name, result in results.items()}},
    Place.of(truth, volume.affine),
    Scale.of("ct", picture_window(truth, "ct")),
    metrics=scores,
)

# %% [markdown]
# **What this cannot tell:** which of the small things in the right picture were measured. All three fit the eight
# views about as well as they can be fitted; what lies between them is total variation's taste, or what the prior has
# seen elsewhere. [How sure it is](samples.md) is another question.
