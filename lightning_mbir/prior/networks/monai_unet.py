"""MONAI's diffusion U-Net as a denoiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks.preconditioning import check_preconditioning, precondition

TIMESTEPS_PER_LABEL = 100.0
"""MONAI's embedding has frequencies of 1 down to 1e-4 a timestep; this makes the highest 25 per unit of log sigma."""


class MonaiUNet(nn.Module):
    """Denoiser ``(x, sigma) -> x0`` made of ``monai.networks.nets.DiffusionModelUNet``, at full resolution.

    The timestep that MONAI embeds is a continuous function of log sigma. The default has 3.7 M parameters.

    Args:
        channels: width at each resolution, multiples of ``norm_groups``.
        num_res_blocks: residual blocks at each resolution.
        attention_levels: levels with self-attention, counted from 0; the middle always has it.
        head_channels: channels of each attention head.
        norm_groups: groups of the group norms.
        in_channels: channels of the image: 1, or 2 for real and imaginary part.
        sigma_data: standard deviation of clean images about ``mean``.
        mean: subtracted from each channel before scaling; 0.35 by default, and 0 with two channels.
        preconditioning: ``"edm"`` or ``"ve"``, see ``precondition``.

    Raises:
        InputError: options that MONAI refuses, or its optional package einops is missing.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 96, 128),
        num_res_blocks: int = 1,
        attention_levels: Sequence[int] = (3,),
        head_channels: int = 32,
        norm_groups: int = 16,
        in_channels: int = 1,
        sigma_data: float = 0.35,
        mean: float | None = None,
        preconditioning: str = "edm",
    ) -> None:
        super().__init__()
        # here, since the import takes seconds that other networks need not pay
        from monai.networks.nets import DiffusionModelUNet
        from monai.utils import OptionalImportError

        self.preconditioning = check_preconditioning(preconditioning, sigma_data, mean)
        self.in_channels = in_channels
        self.sigma_data = sigma_data
        self.mean = (0.0 if in_channels == 2 else 0.35) if mean is None else mean
        self.stride = 2 ** (len(channels) - 1)
        try:
            self.unet = DiffusionModelUNet(
                spatial_dims=2,
                in_channels=in_channels,
                out_channels=in_channels,
                channels=tuple(channels),
                num_res_blocks=num_res_blocks,
                attention_levels=tuple(level in attention_levels for level in range(len(channels))),
                num_head_channels=head_channels,
                norm_num_groups=norm_groups,
                use_flash_attention=True,  # torch's SDPA, on every device
            )
        except ValueError as error:
            raise InputError(f"network 'monai' does not take these options: {error}") from error
        except OptionalImportError as error:
            raise InputError("network 'monai' needs the package einops; pip install einops") from error

    def forward(
        self, x: Float[Tensor, "batch channels y x"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels y x"]:
        """Posterior mean of the clean images.

        Args:
            x: ``(B, C, Y, X)`` noisy images in the prior's unit, sides divisible by ``stride``.
            sigma: ``(B,)`` standard deviation of the noise in each channel.
        """
        return precondition(self.network, x, sigma, self.preconditioning, self.sigma_data, self.mean)

    def network(
        self, x: Float[Tensor, "batch channels y x"], noise_label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels y x"]:
        """The bare U-Net: ``(B, C, Y, X)`` and ``(B,)`` labels to ``(B, C, Y, X)``."""
        out: Tensor = self.unet(x, TIMESTEPS_PER_LABEL * noise_label.to(torch.float32))
        return out
