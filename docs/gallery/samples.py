# %% [markdown]
# # How sure is it?
#
# **The spread of samples shows where, but is several times too narrow; a factor from another volume gives it the size
# of the error.** Several samples of `dds` are reconstructed of one measurement. Where they differ, the measurement
# leaves something open.

# %% tags=["parameters"]
path, other = None, None  # two volumes of yours; without them, two chests are drawn
slices, size = "14:18", 96
views, samples, steps = 8, 6, 12

# %%
from lightning_mbir import (
    TASKS,
    ParallelBeam,
    Place,
    Scale,
    VolumeDataModule,
    calibrate,
    calibration_figure,
    load_prior,
    picture_window,
    reconstruct_samples,
)

demo = VolumeDataModule(modality="ct", image_size=size, slices=slices, demo_volumes=2)
given = [path and VolumeDataModule(path, modality="ct", image_size=size, slices=slices) for path in (path, other)]
volume, another = (demo.scan(k) if data is None else data.scan(0) for k, data in enumerate(given))
prior = load_prior("ct")


def sampled(volume):
    """Samples of one measurement of a volume."""
    operator = ParallelBeam(size, [i * 180 / views for i in range(views)], pixel_size=volume.spacing[1])
    options = {"steps": steps, "volume": volume.name, **TASKS["sv_ct"].options["dds"]}
    return reconstruct_samples(operator(volume.data), operator, prior, "dds", samples=samples, **options)


# %% [markdown]
# `calibrate` holds the error of the mean against the spread: a ratio of 1 is right, above it the samples are too much
# alike. The factor comes from the other volume, whose truth is known, and is tried on this one.

# %%
found = sampled(another)
factor = round(calibrate(found.volume, found.std, another.data, samples).ratio, 2)
result = sampled(volume)
for name, times in (("as the samples have it", 1.0), (f"times {factor}", factor)):
    judged = calibrate(result.volume, times * result.std, volume.data, samples)
    print(f"spread {name}: error / spread {judged.ratio:.2f}, {judged.within_90:.0%} of the voxels within their 90 %")

# %%
calibration_figure(
    f"{volume.name}, {views} views, dds",
    judged,
    result.volume,
    factor * result.std,
    volume.data,
    samples,
    Place.of(volume.data, volume.affine),
    Scale.of("ct", picture_window(volume.data, "ct")),
    factor,
)

# %% [markdown]
# `predict --samples 8` does the same with factors that were found on [scans of patients](../trust.md), and says where
# it has none.
#
# **What this cannot tell:** what no sample shows. A factor is right on average over voxels that are like those it was
# found on; something that the prior has never seen is missing from all samples alike, and the spread is small there.
