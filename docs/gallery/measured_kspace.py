# %% [markdown]
# # Which method for k-space of a real scan?
#
# **Ask the measurement: on this brain wavelets did best, and the prior came second.** A scan that was fully sampled is
# undersampled here, so that there is something to compare with. It has noise and a phase, and its coils have to be
# estimated: a prior gains less there than on drawn heads.
#
# The brain is measured with 16 coils, one slice of 256 mm (MR-Physics-with-Pulseq, MIT licence). The file does not
# come with the package; without it a scan is simulated, and the first line of the output says so.

# %% tags=["parameters"]
path = "brain_gre_16ch_128x128.npz"  # yours: fastMRI, MRD, TWIX, BART, or an array
axes = "coil y x"  # of an array, what its dimensions are; None where the file says it
acceleration, steps = 4, 20

# %%
from pathlib import Path

import numpy as np
import torch

from lightning_mbir import (
    TASKS,
    MeasurementOptions,
    MultiCoilFourier,
    Place,
    Scale,
    VolumeDataModule,
    complex_gaussian,
    image_metrics,
    loop_coil_maps,
    measured_operator,
    part_of,
    picture_window,
    read_measurement,
    reconstruct,
    volumes_figure,
)


def simulated(coils: int = 8, size: int = 128, snr: float = 30.0) -> str:
    """A file with k-space of a drawn head: a smooth phase, coils in a ring, noise."""
    head = VolumeDataModule(modality="mri", image_size=size, slices="16:17").scan(0).data
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    scan = MultiCoilFourier(torch.ones(size, size), loop_coil_maps(coils, size))
    kspace = scan(head * torch.exp(1j * (2 * x * x - y + 0.5)))
    noisy = complex_gaussian(kspace, snr, torch.Generator().manual_seed(0))
    np.savez("simulated.npz", kspace=noisy[0].numpy())  # (coil, y, x)
    return "simulated.npz"


if not Path(path).is_file():
    print(f"no file {path}: a simulated scan of a drawn head, 8 coils, 30 dB")
    path, axes = simulated(), "coil y x"
measurement = read_measurement(path, "mri", MeasurementOptions(axes=axes))
print(f"{measurement.name}: {tuple(measurement.y.shape)}; {'; '.join(measurement.notes)}")

# %% [markdown]
# `part_of` keeps what a faster scan would have measured, after which the coil maps are estimated: from the middle of
# k-space, as if nothing else were known. The reference is SENSE of everything, which has noise of its own.

# %%
everything = reconstruct(measurement.y, measured_operator(measurement), method="sense").image
part = part_of(measurement, acc=acceleration, mask="gaussian1d")
operator = measured_operator(part)
task = TASKS["cs_mri"]
results = {
    name: reconstruct(
        part.y,
        operator,
        method=method,
        steps={"dds": steps, "admm_tv": 3 * steps}.get(method),
        noise_std=part.noise_std,
        **task.tuned(method, noisy=True),
    )
    for name, method in {"SENSE": "sense", "wavelets": "l1_wavelet", "ADMM-TV": "admm_tv", "dds": "dds"}.items()
}
window = picture_window(everything, "mri")
scores = {name: image_metrics(result.image, everything, window[1]) for name, result in results.items()}
for name, result in results.items():
    print(f"{name:9} {scores[name]['axial']['psnr']:.1f} dB, data residual {result.residual:.3f}")

# %%
volumes_figure(
    f"{measurement.name}, one line in {acceleration}",
    {"everything": everything, **{name: result.image for name, result in results.items()}},
    Place.of(everything, measurement.affine, sided=False, sized=measurement.sized),
    Scale.of("mri", window),
    metrics=scores,
)

# %% [markdown]
# **What this cannot tell:** which is best for your scan. One slice of one scanner says nothing of others, and PSNR
# against a noisy reference favours what is smooth. `method="auto"` asks your measurement instead, by lines that are
# [held out](../trust.md).
