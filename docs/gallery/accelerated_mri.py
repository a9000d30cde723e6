# %% [markdown]
# # Can a head be seen in an eighth of its k-space?
#
# **Its skull and its ventricles, with a prior of heads; the fine folds of the brain are lost to all methods.** One
# line in eight is kept, most of them near the middle of k-space. The image is a magnitude without noise, which is
# easier than [a scan that was measured](measured_kspace.md).

# %% tags=["parameters"]
path = None  # "t1.nii.gz"; without one, a head is drawn
slices, size = "14:18", 128
acceleration, steps = 8, 20

# %%
from lightning_mbir import (
    TASKS,
    FourierSampling,
    Place,
    RealDomain,
    Scale,
    VolumeDataModule,
    image_metrics,
    make_mask,
    picture_window,
    reconstruct,
    volumes_figure,
)

volume = VolumeDataModule(path, modality="mri", image_size=size, slices=slices).scan(0)
truth = volume.data  # (Z, Y, X), in a unit of its own
mask = make_mask("gaussian1d", (size, size), acceleration)
operator = RealDomain(FourierSampling(mask))  # on real volumes: their phase is 0
kspace = operator(truth)
print(f"{volume.name}: {int(mask[0].sum())} of {size} lines, {tuple(kspace.shape)} {kspace.dtype}")

# %%
tuned = TASKS["cs_mri"].options
results = {
    "zero-filled": reconstruct(kspace, operator, method="zero_filled"),
    "wavelets": reconstruct(kspace, operator, method="l1_wavelet", **tuned["l1_wavelet"]),
    "ADMM-TV": reconstruct(kspace, operator, method="admm_tv", steps=3 * steps, **tuned["admm_tv"]),
    "dds": reconstruct(kspace, operator, "mri", "dds", steps=steps, volume=volume.name, **tuned["dds"]),
}
window = picture_window(truth, "mri")  # 0 to the 99.5th percentile of the truth
scores = {name: image_metrics(result.volume, truth, window[1]) for name, result in results.items()}
for name, score in scores.items():
    print(f"{name:12} {score['axial']['psnr']:.1f} dB")

# %%
volumes_figure(
    f"{volume.name}, one line in {acceleration}",
    {"ground truth": truth, **{name: result.volume for name, result in results.items()}},
    Place.of(truth, volume.affine),
    Scale.of("mri", window),
    metrics=scores,
)

# %% [markdown]
# **What this cannot tell:** how it would be with a lesion that no head of the training had. The prior can only put in
# what it knows, or what the measurement insists on; at this acceleration the measurement insists on little.
