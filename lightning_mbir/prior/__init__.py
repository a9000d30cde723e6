"""What a slice looks like: score networks, their training, and the denoisers made of them."""

from typing import TYPE_CHECKING

from lightning_mbir.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_mbir.prior.checkpoints.checkpoint import load_prior as load_prior
    from lightning_mbir.prior.checkpoints.checkpoint import save_prior as save_prior
    from lightning_mbir.prior.checkpoints.score_sde import import_score_sde as import_score_sde
    from lightning_mbir.prior.denoiser import SliceDenoiser as SliceDenoiser
    from lightning_mbir.prior.denoiser import Unit as Unit
    from lightning_mbir.prior.epsilon import EpsilonNetwork as EpsilonNetwork
    from lightning_mbir.prior.networks.monai_unet import MonaiUNet as MonaiUNet
    from lightning_mbir.prior.networks.ncsnpp import NCSNpp as NCSNpp
    from lightning_mbir.prior.networks.unet import LightUNet as LightUNet
    from lightning_mbir.prior.training.module import ScorePriorModule as ScorePriorModule
    from lightning_mbir.prior.training.vesde import VESDE as VESDE
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
