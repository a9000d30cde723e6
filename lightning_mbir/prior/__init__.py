"""What a slice looks like: score networks, their training, and the denoisers made of them."""

from lightning_mbir.prior.checkpoints.checkpoint import load_prior, save_prior
from lightning_mbir.prior.checkpoints.score_sde import import_score_sde
from lightning_mbir.prior.denoiser import SliceDenoiser, Unit
from lightning_mbir.prior.networks.monai_unet import MonaiUNet
from lightning_mbir.prior.networks.ncsnpp import NCSNpp
from lightning_mbir.prior.networks.unet import LightUNet
from lightning_mbir.prior.training.module import ScorePriorModule
from lightning_mbir.prior.training.vesde import VESDE

__all__ = [
    "VESDE",
    "LightUNet",
    "MonaiUNet",
    "NCSNpp",
    "ScorePriorModule",
    "SliceDenoiser",
    "Unit",
    "import_score_sde",
    "load_prior",
    "save_prior",
]
