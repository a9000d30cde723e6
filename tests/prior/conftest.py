"""A network that is small, and random in every layer; and a training that is small, in float32."""

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mbir.data import SliceDataModule
from lightning_mbir.prior import LightUNet, ScorePriorModule

LITTLE_VALIDATION = {"num_sanity_val_steps": 0, "limit_val_batches": 2}
"""For trainings of which the validation is not the subject: as often, of fewer of the 32 slices."""
OPTIONS = {"channels": [8, 16], "blocks": 1}
TINY = {"channels": [8, 16], "blocks": 1, "attention": False}


def network() -> LightUNet:
    torch.manual_seed(0)
    net = LightUNet(**OPTIONS)  # type: ignore[arg-type]
    for parameter in net.parameters():  # the last layers start at zero: fill them, so that something is tested
        torch.nn.init.normal_(parameter, std=0.05)
    return net


def tiny(**options: object) -> ScorePriorModule:
    return ScorePriorModule(network_options=TINY, warmup_steps=1, **options)  # type: ignore[arg-type]


def tiny_data() -> SliceDataModule:
    return SliceDataModule(image_size=32, batch_size=4, phantom_volumes=1, slices_per_epoch=16)


def trainer(folder: Path, steps: int, **options: object) -> L.Trainer:
    settings: dict[str, object] = {
        "max_steps": steps,
        "accelerator": "cpu",
        "logger": TensorBoardLogger(folder, name="", version="run"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
    }
    return L.Trainer(**{**settings, **options})  # type: ignore[arg-type]
