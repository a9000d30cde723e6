# %% [markdown]
# # What does a prior learn in a minute?
#
# **Enough to beat total variation on what it has seen: drawn chests of 64 x 64 pixels, here from four views.**
# A small network is trained on phantoms and used at once, on a chest that was in no training. Real priors take hours
# and patients; [training](../training.md) has what they need.

# %% tags=["parameters"]
batches = 260  # of 8 slices
size, views, steps = 64, 4, 20

# %%
import logging

import lightning

from lightning_mbir import (
    TASKS,
    ParallelBeam,
    Place,
    Scale,
    ScorePriorModule,
    SliceDataModule,
    VolumeDataModule,
    image_metrics,
    load_prior,
    picture_window,
    reconstruct,
    volumes_figure,
)

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
lightning.seed_everything(0, verbose=False)
slices = SliceDataModule(modality="ct", image_size=size, phantom_volumes=4, slices_per_epoch=400)
network = {"channels": [24, 32, 48], "attention": False}
module = ScorePriorModule(modality="ct", network_options=network, warmup_steps=20, learning_rate=3e-3, cosine=False)
trainer = lightning.Trainer(
    max_steps=batches,
    accelerator="cpu",
    gradient_clip_val=1.0,
    limit_val_batches=0,
    num_sanity_val_steps=0,
    logger=False,
    default_root_dir=".",
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, slices)
print(f"{module.slices_seen} slices, {sum(p.numel() for p in module.network.parameters())} weights")

# %% [markdown]
# The averaged weights are written when a training ends, into one file that says how they are used. On the command line
# `fit` does all of this, and keeps what did best on a held-out patient.

# %%
prior = load_prior("prior.safetensors")

volume = VolumeDataModule(modality="ct", image_size=size, slices="12:20").scan(0)
truth = volume.data
operator = ParallelBeam(size, [i * 180 / views for i in range(views)], pixel_size=volume.spacing[1])
sinogram = operator(truth)
tuned = TASKS["sv_ct"].options
results = {
    "ADMM-TV": reconstruct(sinogram, operator, method="admm_tv", steps=3 * steps, **tuned["admm_tv"]),
    "dds, one minute": reconstruct(sinogram, operator, prior, "dds", steps=steps, **tuned["dds"]),
    "dds, ct": reconstruct(sinogram, operator, "ct", "dds", steps=steps, **tuned["dds"]),
}
scores = {name: image_metrics(result.volume, truth, TASKS["sv_ct"].data_range) for name, result in results.items()}
for name, score in scores.items():
    print(f"{name:15} {score['axial']['psnr']:.1f} dB")

# %%
volumes_figure(
    f"{volume.name}, {views} views",
    {"ground truth": truth, **{name: result.volume for name, result in results.items()}},
    Place.of(truth, volume.affine),
    Scale.of("ct", picture_window(truth, "ct")),
    metrics=scores,
)

# %% [markdown]
# **What this cannot tell:** how good a prior of patients would be. Phantoms are drawn by one program, and so are the
# chests here: nothing that the network meets is new to it, which is never so with people.
