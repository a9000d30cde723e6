# %% [markdown]
# # Does it have to be a diffusion network?
#
# **No: any denoiser can be the prior, and a better one gives a better volume.** Below, soft-thresholded wavelets take
# the place of the network. They know that images are piecewise smooth, and nothing of chests.

# %% tags=["parameters"]
path = None  # "scan.nii.gz"; without one, a chest is drawn
slices, size = "12:20", 128
views, steps = 16, 20

# %%
import pywt
import torch

from lightning_mbir import (
    TASKS,
    ParallelBeam,
    Place,
    Scale,
    Unit,
    VolumeDataModule,
    image_metrics,
    picture_window,
    reconstruct,
    volumes_figure,
)


class Wavelets:
    """A denoiser is called with slices ``(Z, Y, X)``, in its unit, and the deviation of their noise."""

    unit = Unit.of("ct")  # 0.0384 1/mm is 1: air 0, water 0.5

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        levels = 4
        coefficients = pywt.swt2(x.numpy(), "haar", levels, axes=(1, 2), norm=True, trim_approx=True)
        kept = [coefficients[0]]
        for level, details in zip(range(levels, 0, -1), coefficients[1:], strict=True):
            threshold = 2.5 * sigma / 2**level  # of the transform's noise at that level
            kept.append(tuple(pywt.threshold(detail, threshold, "soft") for detail in details))
        return torch.from_numpy(pywt.iswt2(kept, "haar", axes=(1, 2), norm=True)).to(x)


# %% [markdown]
# The sampler asks for ever smaller noise, and pulls the volume towards the measurement in between. It does not know
# what denoises.

# %%
volume = VolumeDataModule(path, modality="ct", image_size=size, slices=slices).scan(0)
truth = volume.data
operator = ParallelBeam(size, [i * 180 / views for i in range(views)], pixel_size=volume.spacing[1])
sinogram = operator(truth)
options = {"steps": steps, "volume": volume.name, **TASKS["sv_ct"].options["dds"]}
results = {
    "FBP": reconstruct(sinogram, operator, method="fbp", filter="hann"),
    "dds, wavelets": reconstruct(sinogram, operator, Wavelets(), "dds", **options),
    "dds, ct": reconstruct(sinogram, operator, "ct", "dds", **options),
}
scores = {name: image_metrics(result.volume, truth, TASKS["sv_ct"].data_range) for name, result in results.items()}
for name, result in results.items():
    print(f"{name:14} {scores[name]['axial']['psnr']:.1f} dB, data residual {result.residual:.1e}")

# %%
volumes_figure(
    f"{volume.name}, {views} views",
    {"ground truth": truth, **{name: result.volume for name, result in results.items()}},
    Place.of(truth, volume.affine),
    Scale.of("ct", picture_window(truth, "ct")),
    metrics=scores,
)

# %% [markdown]
# Networks of other frameworks take `EpsilonNetwork` and `SliceDenoiser`: [extending](../extending.md).
#
# **What this cannot tell:** what samples of it would mean. Thresholded wavelets are no posterior mean of any
# distribution of images, so the spread of samples is none of a posterior.
