"""What is shared by all that is written into TensorBoard: whose writer it is, settings, figures as pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plain = int | float | str


def writer_of(loggers: Iterable[Any]) -> Any:
    """The ``SummaryWriter`` of the first TensorBoard logger, which in other processes than the first does nothing; None
    where no logger is one."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return next((logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)), None)


def write_settings(
    writer: Any,
    settings: Mapping[str, Any],
    scores: Iterable[str],
    first: Iterable[str] = (),
    columns: Mapping[str, Plain] | None = None,
) -> None:
    """Settings for the tab HParams, beside which it shows the last value of each scalar that is named.

    Nothing else is written: a value that stands for one which is not there yet, as ``hp_metric`` does in Lightning,
    would be a point in a chart.

    Args:
        writer: of the run that the settings are of.
        settings: by name; what is neither a number nor a text is written out.
        scores: tags of scalars of the same run.
        first: settings that stand before the others; of these TensorBoard shows five until it is told to show more.
        columns: a value of each column there may be in any run of the folder, of which TensorBoard asks one run alone;
            by default the settings.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard import summary

    told = {name: plain(value) for name, value in settings.items() if value is not None}
    hparams: Any = summary.hparams
    experiment, _, _ = hparams(dict(told if columns is None else columns), dict.fromkeys(scores, 0.0))
    about = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(about.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in set(first)  # by which they are sorted
    about.content = content.SerializeToString()
    _, start, end = hparams(told, {})
    for part in (experiment, start, end):
        writer.file_writer.add_summary(part)
    writer.flush()


def plain(value: Any) -> Plain:
    """A number or a text; of a path its name alone."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, bool):  # which TensorBoard would take for a number
        return str(value).lower()
    return value if isinstance(value, int | float | str) else str(value)


def pixels(figure: Figure) -> np.ndarray:
    """A figure that has a canvas as an image ``(height, width, 3)`` of bytes."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
