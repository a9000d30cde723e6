# %% [markdown]
# # Do several processes give the same volume as one?
#
# **Yes, but for rounding.** With `--split slices` each device, or here each process on the CPU, holds some slices of
# one volume, and they exchange what total variation along z and the norms need. The command line does it all.

# %% tags=["parameters"]
task = "--task sv_ct --views 8 --method dds --steps 10 --slice_batch 1 --model.precision float32"
data = "--data.image_size 96 --data.slices 10:22"  # of a drawn chest; --data.path scan.nii.gz for yours

# %%
import subprocess
import sys
from pathlib import Path

from IPython.display import Image

from lightning_mbir import read_volume


def predict(output, processes):
    """One run of the command line; returns the volume that it has written, and its folder."""
    command = f"predict {task} {data} --split slices --trainer.accelerator cpu --trainer.devices {processes}"
    print(f"python -m lightning_mbir {command} --output_dir {output}")
    words = [sys.executable, "-m", "lightning_mbir", *command.split(), "--output_dir", output]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    print(done.stdout)
    (written,) = Path(output).rglob("recon.nii.gz")
    return read_volume(written, "ct").data, written.parent


one, _ = predict("one", processes=1)
two, folder = predict("two", processes=2)
print(f"largest difference {float((one - two).abs().max() / one.abs().max()):.1e} of the peak")

# %% [markdown]
# Noise is keyed by the number of the slice, so it does not matter which process draws it.

# %%
Image(folder / "montage.png")

# %% [markdown]
# On a machine with several GPUs leave `--trainer.accelerator cpu` out. Where there are more volumes than devices,
# whole volumes are shared out instead: that is quicker, and the default ([many GPUs](../guides/gpus.md)).
#
# **What this cannot tell:** how much faster it is. Two processes on two cores share their cache and their memory;
# [scale](../scale.md) has what was measured, and what crosses between devices.
