"""The supervised baseline: a U-Net that corrects the direct inversion of one measurement, and the files it lives in.

FBPConvNet: Jin et al., "Deep convolutional neural network for inverse problems in imaging", IEEE TIP 26(9), 2017.
It knows one geometry (the views, or the mask), which stands in its file; ``fbp_unet_training`` trains it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.files import write_whole
from lightning_mbir.host_slabs import Arriving, sent
from lightning_mbir.methods.method import Count, method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.physics import FourierSampling, LinearOperator, MultiCoilFourier, ParallelBeam, RealDomain
from lightning_mbir.prior.checkpoints.weights import check_finite, check_network, read_safetensors, safetensors_bytes
from lightning_mbir.prior.networks.running import channels_last
from lightning_mbir.prior.networks.unet import LightUNet
from lightning_mbir.samplers import SamplerState
from lightning_mbir.slabs import with_ends
from lightning_mbir.solvers import fbp, zero_filled

FORMAT = "lightning_mbir.fbp_unet.1"
KEYS = ("task", "settings", "seed", "geometry", "network_options", "unit")


class CorrectionUNet(nn.Module):
    """``x + F(x)``: the light U-Net of the priors, whose noise level stands still, with a skip of its input.

    Its last layer starts at zero, so training starts from the direct inversion.

    Args:
        **options: of ``LightUNet``; ``in_channels`` is 1, or 2 for real and imaginary part; with ``slices`` 3 it looks
            at each slice and its neighbours (a 2.5D network), and is told how far apart they are.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        # With "ve" scaling and a noise level of 1, LightUNet is x + F(x - mean).
        self.unet = LightUNet(**{**options, "preconditioning": "ve"})
        self.stride: int = self.unet.stride
        self.slices: int = self.unet.slices

    def forward(self, x: Tensor, distance: Tensor | None = None) -> Tensor:
        """Corrected slices: ``(B, C, Y, X)`` to ``(B, C, Y, X)`` in the prior's unit, sides divisible by ``stride``.

        With three ``slices``: of ``(B, 3 C, Y, X)``, one slice after another and their ``distance`` ``(B,)`` in mm, the
        middle one.
        """
        out: Tensor = self.unet(x, torch.ones(len(x), device=x.device), distance)
        return out.chunk(self.slices, 1)[self.slices // 2]


@dataclass(frozen=True)
class FBPUNet:
    """A trained network and what it was trained for.

    Attributes:
        network: a ``CorrectionUNet``.
        config: ``KEYS``: the task with its settings and the seed of its mask, the ``geometry_of`` its operator, the
            options of the network, and what is 1 in its unit.
        path: the file it is from.
        spacing: mm from slice to slice of the volume to come, which a network of three slices has to know.
        device: where the network works on slices of host memory; where they are, if not given.
    """

    network: CorrectionUNet
    config: dict[str, Any]
    path: Path
    spacing: float | None = None
    device: torch.device | None = None

    def check_geometry(self, operator: LinearOperator) -> None:
        """Raise ``InputError`` where ``operator`` is another one than that of the training."""
        trained, given = self.config["geometry"], geometry_of(operator)
        if trained != given:
            settings = ", ".join(f"{name} {value}" for name, value in self.config["settings"].items())
            raise InputError(
                f"--network {self.path}: trained for {self.config['task']} ({settings}), that is for "
                f"{describe(trained)}; this measurement is of {describe(given)}; train one for it with `fit_unet`"
            )

    @torch.no_grad()
    def __call__(self, direct: Tensor, slice_batch: int = 8) -> Tensor:
        """Corrected slices of a direct inversion ``(Z, Y, X)``, both in the prior's unit; worked out in float32.

        Raises:
            InputError: a network of three slices that was not told their distance.
        """
        device = direct.device if self.device is None else self.device
        network = self.network.to(device)
        if network.slices > 1 and self.spacing is None:
            raise InputError(
                f"--network {self.path}: it looks at neighbouring slices and has to know how far apart they are; "
                "give spacing=(z, y, x) in mm (`spacing` in the file of a measurement)"
            )
        single = as_channels(direct.to(torch.complex64 if direct.is_complex() else torch.float32))
        out = torch.empty_like(single)
        wide, first_own = with_ends(single, network.slices // 2)
        arriving = Arriving(out)
        for places in torch.split(torch.arange(len(single), device=direct.device), slice_batch):
            distance = None
            if self.spacing is not None and network.slices > 1:
                distance = torch.full((1,), self.spacing, device=device).expand(len(places))
            part = sent(with_neighbours(wide, first_own + places, network.slices), device)
            first = int(places[0])
            arriving.put(slice(first, first + len(places)), network(part, distance))
        arriving.settle()
        return from_channels(out).to(direct.dtype)


def direct_inversion(y: Tensor, operator: LinearOperator) -> Tensor:
    """What the network corrects: FBP with the ramp filter, or the zero-filled image; ``(Z, Y, X)``."""
    return fbp(y, operator) if isinstance(operator, ParallelBeam) else zero_filled(y, operator)


def geometry_of(operator: LinearOperator) -> dict[str, Any]:
    """What the artefacts of a direct inversion depend on, as plain data; lengths in pixels, since FBP scales with them.

    Raises:
        InputError: another operator than ``ParallelBeam``, ``FourierSampling`` or ``MultiCoilFourier``.
    """
    if isinstance(operator, ParallelBeam):
        return {
            "operator": "ParallelBeam",
            "image_size": operator.image_size,
            "angles": [round(float(angle), 6) for angle in operator.angles],
            "bins": operator.n_detectors,
            "bin_pixels": round(operator.detector_spacing / operator.pixel_size, 6),
            "offset_pixels": round(operator.center_offset / operator.pixel_size, 6),
        }
    sampling = operator.operator if isinstance(operator, RealDomain) else operator
    if not isinstance(sampling, FourierSampling | MultiCoilFourier):
        raise InputError(f"fbp_unet is for ParallelBeam and Cartesian k-space of slices, not {type(sampling).__name__}")
    mask = sampling.mask.bool().cpu().numpy()
    if mask.ndim != 2:
        raise InputError("fbp_unet is for one mask of all slices, not masks by slice")
    maps = getattr(sampling, "coil_maps", None)
    coils = {} if maps is None else {"coil_maps": _rounded_sha256(maps)}
    return {
        "operator": type(sampling).__name__,
        **coils,
        "image_size": list(mask.shape),
        "complex": operator.domain_complex,
        "mask": hashlib.sha256(mask.tobytes()).hexdigest()[:16],
        "acceleration": round(mask.size / int(mask.sum()), 3),
    }


def _rounded_sha256(maps: Tensor) -> str:
    """Of maps to three digits, which other machines compute alike."""
    return hashlib.sha256((torch.view_as_real(maps) * 1e3).round().short().cpu().numpy().tobytes()).hexdigest()[:16]


def describe(geometry: dict[str, Any]) -> str:
    """A geometry in a few words."""
    size = geometry["image_size"]
    if geometry["operator"] == "ParallelBeam":
        angles = geometry["angles"]
        views = f"{len(angles)} views from {min(angles):g} to {max(angles):g} degrees"
        return f"{views} on {geometry['bins']} bins, {size} x {size} pixels"
    kind = "complex" if geometry["complex"] else "real"
    return f"mask {geometry['mask']} ({geometry['acceleration']:g}-fold), {size[0]} x {size[1]} {kind} pixels"


def with_neighbours(x: Tensor, places: Tensor, slices: int) -> Tensor:
    """Slices ``(Z, C, Y, X)`` at some places, ``(B, C, Y, X)``, or each between its neighbours, ``(B, 3 C, Y, X)``.

    Beyond the ends of the stack lie the last ones again.
    """
    reach = torch.arange(slices, device=places.device) - slices // 2
    found = x[(places[:, None] + reach).clamp(0, len(x) - 1)].flatten(1, 2)
    return found.contiguous(memory_format=torch.channels_last)


def as_channels(x: Tensor) -> Tensor:
    """Slices ``(Z, Y, X)`` to ``(Z, 1, Y, X)``; complex ones to ``(Z, 2, Y, X)``."""
    x = torch.view_as_real(x.resolve_conj()).movedim(-1, 1) if x.is_complex() else x[:, None]
    return x.contiguous(memory_format=torch.channels_last)


def from_channels(x: Tensor) -> Tensor:
    """The slices back: real ones of one channel, complex ones of two."""
    return x[:, 0].contiguous() if x.shape[1] == 1 else torch.complex(x[:, 0], x[:, 1])


def write_unet(path: Path, network: nn.Module, config: dict[str, Any]) -> None:
    """Write a network and its configuration (``KEYS``), whole or not at all, and of the same network the same bytes.

    Raises:
        InputError: weights that are not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    check_finite(tensors, path)
    metadata = {"format": FORMAT, "config": json.dumps({key: config[key] for key in KEYS})}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, safetensors_bytes(tensors, metadata))


def read_unet(path: Path) -> FBPUNet:
    """A network that ``write_unet`` wrote.

    Raises:
        InputError: no such file, one that is cut short, or of something else, or whose weights do not fit.
    """
    if not path.is_file():
        raise InputError(f"--network {path}: no such file; `fit_unet` writes unet.safetensors")
    try:
        tensors, metadata = read_safetensors(path)
    except InputError as error:
        raise InputError(f"--network {error}") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise InputError(f"--network {path}: its format is {found}, not {FORMAT}; give a file that `fit_unet` wrote")
    check_finite(tensors, path)
    try:
        config = json.loads(metadata["config"])
        _checked(config)
        options = config["network_options"]
        check_network(lambda: CorrectionUNet(**options), options, tensors, path)
        network = CorrectionUNet(**options)
        network.load_state_dict(tensors)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"--network {path}: damaged, or of another version ({reason}); get it again") from error
    channels_last(network.float().eval().requires_grad_(False))
    return FBPUNet(network, config, path)


def _checked(config: Any) -> None:
    """Raise ``LookupError`` or ``TypeError`` where the configuration is not that of a network."""
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise LookupError(f"the configuration lacks {', '.join(missing)}")
    if not all(isinstance(config[key], dict) for key in ("settings", "geometry", "network_options")):
        raise TypeError("settings, geometry and network_options must be JSON objects")
    describe(config["geometry"])


@method(needs=("network",), weighted=False, splits=True)
def fbp_unet(p: Problem, *, slice_batch: Count = 8) -> Tensor:
    """FBPConvNet (Jin et al., IEEE TIP 2017): the direct inversion, corrected by a network that knows the measurement.

    Args:
        p: the problem.
        slice_batch: slices that pass the network at once.
    """
    x = p.network(p.inverse(direct_inversion), slice_batch)
    p.report(SamplerState(1, 1, 0.0, x, 1))
    return x
