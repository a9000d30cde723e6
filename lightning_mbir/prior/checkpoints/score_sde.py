"""Import of released checkpoints: score_sde_pytorch, DiffusionMBIR and score-MRI share one layout.

The file is a dict with ``model`` (parameters named by their place in a list, ``module.all_modules.N.<name>``, and a
buffer ``module.sigmas``; without ``module.`` where the network was not wrapped for several GPUs), ``ema`` (whose
``shadow_params`` is a bare list in the order of the trainable parameters), ``optimizer`` and ``step``. It does not say
how the network is built: that is read from the names and shapes. What they cannot tell is taken to be as in the paper:
images in [0, 1] (``centered`` False), an output divided by sigma, FIR (1, 3, 3, 1), ``skip_rescale``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.checkpoints.weights import check_finite, read_torch
from lightning_mbir.prior.networks.ncsnpp import Attention, NCSNpp, PyramidDown, ResidualBlock

PREFIXES = ("module.all_modules.", "all_modules.")
"""Of parameters: networks were saved inside ``DataParallel``, or as they were."""
FREQUENCIES = "0.W"  # fixed, hence not in the EMA list
UNUSED = {"module.sigmas", "sigmas"}  # the discrete noise levels; the continuous network takes sigma itself

BLOCK_NAMES = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "embed",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "Conv_2": "skip",
}
ATTENTION_NAMES = {"GroupNorm_0": "norm", "NIN_0": "q", "NIN_1": "k", "NIN_2": "v", "NIN_3": "out"}


@dataclass(frozen=True)
class _Layout:
    """What the checkpoint's names and shapes say about the network."""

    in_channels: int
    nf: int
    channel_multipliers: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]


def import_score_sde(path: str | Path, ema: bool = True) -> NCSNpp:
    """The network of a released checkpoint, with its weights.

    Args:
        path: the ``.pth`` file; it is loaded with ``weights_only=True``.
        ema: the averaged weights, or the raw ones.

    Raises:
        InputError: no such file, a file that is cut short, another network, or keys that are missing or left over.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint (.pth) in the released layout")
    return read_score_sde(read_torch(path), path, ema)[0]


def read_score_sde(content: Any, path: Path, ema: bool = True) -> tuple[NCSNpp, dict[str, Any]]:
    """The network of the content of a released checkpoint, with its weights, and the options that build it.

    Raises:
        InputError: see ``import_score_sde``; ``path`` is for these messages.
    """
    model, shadow = _read(content, path)
    prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) or key in UNUSED for key in model)), "")
    if not prefix or model.keys() <= UNUSED:
        raise InputError(f"{path}: parameters are not named {PREFIXES[0]}N; this is another network than NCSN++")
    tensors = {key.removeprefix(prefix): value for key, value in model.items() if key not in UNUSED}
    if ema:
        if shadow is None:
            raise InputError(f"{path}: holds no averaged weights; take the raw ones (convert with --raw, or ema=False)")
        trainable = [key for key in tensors if key != FREQUENCIES]
        if len(shadow) != len(trainable):
            raise InputError(f"{path}: {len(shadow)} averaged weights for {len(trainable)} parameters; try ema=False")
        for key, value in zip(trainable, shadow, strict=True):
            if value.shape != tensors[key].shape:
                raise InputError(f"{path}: averaged {key} is {tuple(value.shape)}, not {tuple(tensors[key].shape)}")
            tensors[key] = value
    check_finite(tensors, path)
    try:
        variant = _variant(tensors)
        if variant:
            raise InputError(f"{path}: an NCSN++ with {variant}; what can be imported is that of DiffusionMBIR")
        options = vars(_infer(tensors))
        network = NCSNpp(**options)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{path}: not an NCSN++ of the released layout (at {error})") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not an NCSN++ of the released layout ({error})") from error
    own = dict(network.state_dict())
    weights = {}
    for name, module in _released_order(network):
        for key in [key for key in tensors if key.partition(".")[0] == name]:
            target = _own_name(key.partition(".")[2], module)
            full = f"{_name_of(network, module)}.{target}".strip(".")
            value = tensors.pop(key)
            if value.ndim == 2 and isinstance(module, Attention):
                value = value.t()[:, :, None, None]  # stored as (in, out)
            if full not in own or own[full].shape != value.shape:
                raise InputError(f"{path}: {key} of shape {tuple(value.shape)} does not fit the network's {full}")
            weights[full] = value
    if tensors:
        raise InputError(f"{path}: {len(tensors)} weights are of no use to the network, such as {next(iter(tensors))}")
    missing = own.keys() - weights.keys()
    if missing:
        raise InputError(f"{path}: {len(missing)} weights are missing, such as {sorted(missing)[0]}")
    network.load_state_dict(weights)
    return network.eval(), options


def _read(content: Any, path: Path) -> tuple[dict[str, Tensor], list[Tensor] | None]:
    """Parameters by name, and the averaged ones in their order, if there are any."""
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: not a released checkpoint; it must hold `model` and `ema` with `shadow_params`")
    model = content.get("model", content)  # without the rest of the training, the parameters alone
    if not isinstance(model, dict) or not all(isinstance(value, Tensor) for value in model.values()):
        raise InputError(f"{path}: not a released checkpoint; it must hold `model` and `ema` with `shadow_params`")
    ema = content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if shadow is not None and not (isinstance(shadow, list) and all(isinstance(value, Tensor) for value in shadow)):
        raise InputError(f"{path}: the averaged weights are no list of tensors; not a released checkpoint")
    return {str(key): value for key, value in model.items()}, shadow


def _variant(tensors: dict[str, Tensor]) -> str:
    """What the names and shapes say that our NCSN++ is not, by the names of the released configurations; or nothing."""
    modules: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        modules[int(number)][name] = value
    if "W" not in modules[0]:
        return "embedding_type 'positional', or a DDPM: it takes time steps instead of noise levels"
    if modules[1]["weight"].ndim != 2:
        return "conditional False: it does not know the noise level"
    body = [modules[number] for number in range(4, max(modules) - 1)]
    if any({"NIN_0.W", "Conv_0.weight"} <= names.keys() for names in body):
        return "resblock_type 'ddpm', not 'biggan'"
    if any("weight" in names for names in body):
        return "progressive 'output_skip' or 'residual', not 'none'"
    for names in body:
        alone = names.get("Conv.weight", names.get("Conv_0.weight"))  # a convolution outside of residual blocks
        if alone is not None and "GroupNorm_0.weight" not in names:
            return "fir False" if alone.shape[-1] == 3 else "progressive_input 'input_skip', not 'residual'"
    skips = [names["Conv_2.weight"].shape[:2] for names in body if "Conv_2.weight" in names]
    resamples = any(out == width for out, width in skips)  # else there would be no convolution in the skip
    if resamples and not any("Conv2d_0.weight" in names for names in body):
        return "progressive_input 'none', not 'residual'"
    return ""


def _infer(tensors: dict[str, Tensor]) -> _Layout:
    """Read the layout off the sequence of modules: residual blocks (R), attention (A), steps of the pyramid (P)."""
    kinds: list[str] = []
    widths: list[int] = []
    n_modules = 1 + max(int(key.partition(".")[0]) for key in tensors)
    for n in range(4, n_modules - 2):
        names = {key.split(".")[1] for key in tensors if key.startswith(f"{n}.")}
        if "NIN_0" in names:
            kinds.append("A")
            widths.append(tensors[f"{n}.NIN_0.W"].shape[0])
        elif "Conv2d_0" in names:
            kinds.append("P")
            widths.append(tensors[f"{n}.Conv2d_0.weight"].shape[0])
        else:
            kinds.append("R")
            widths.append(tensors[f"{n}.Conv_0.weight"].shape[0])
    conv_in = tensors["3.weight"]
    nf, in_channels = conv_in.shape[0], conv_in.shape[1]
    starts = [0] + [i + 1 for i, kind in enumerate(kinds) if kind == "P"]
    first = kinds[: kinds.index("P")] if "P" in kinds else kinds
    # A level's last block leads down; a network of one level has n blocks, 2 in the middle and n + 1 on the way up.
    num_res_blocks = first.count("R") - 1 if "P" in kinds else (first.count("R") - 3) // 2
    return _Layout(
        in_channels=in_channels,
        nf=nf,
        channel_multipliers=tuple(widths[start] // nf for start in starts),
        num_res_blocks=num_res_blocks,
        attention_levels=tuple(i for i, start in enumerate(starts) if kinds[start + 1] == "A"),
    )


def _released_order(network: NCSNpp) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the order of the released list, with their place in it."""
    modules: list[nn.Module] = [network, network.dense1, network.dense2, network.conv_in]
    for stage in network.down:
        for i, block in enumerate(stage.blocks):  # type: ignore[arg-type]
            modules.append(block)
            if len(stage.attentions):  # type: ignore[arg-type]
                modules.append(stage.attentions[i])  # type: ignore[index, arg-type]
        modules += [module for module in (stage.reduce, stage.pyramid) if isinstance(module, nn.Module)]
    modules += [network.middle1, network.middle_attention, network.middle2]
    for stage in network.up:
        modules += list(stage.blocks)  # type: ignore[arg-type]
        modules += [module for module in (stage.attention, stage.enlarge) if isinstance(module, nn.Module)]
    modules += [network.norm_out, network.conv_out]
    return ((str(n), module) for n, module in enumerate(modules))


def _own_name(released: str, module: nn.Module) -> str:
    """Our name of a parameter within its module."""
    if isinstance(module, NCSNpp):
        return "frequencies" if released == "W" else released
    layer, _, parameter = released.partition(".")
    if isinstance(module, PyramidDown):
        return f"conv.{parameter}" if layer == "Conv2d_0" else released
    if isinstance(module, Attention):
        return f"{ATTENTION_NAMES.get(layer, layer)}.{ {'W': 'weight', 'b': 'bias'}.get(parameter, parameter) }"
    if isinstance(module, ResidualBlock):
        return f"{BLOCK_NAMES.get(layer, layer)}.{parameter}"
    return released


def _name_of(network: NCSNpp, module: nn.Module) -> str:
    return str(next(name for name, candidate in network.named_modules() if candidate is module))
