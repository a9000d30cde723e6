"""A folder of volumes reconstructed in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from lightning_mbir.data.volumes.datamodule import VolumeDataModule
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.settings import SETTINGS, check_task
from lightning_mbir.reconstruction.module import ReconstructionModule
from lightning_mbir.reconstruction.record import VolumeRecord


def reconstruct_folder(
    path: str | Path,
    task: str,
    method: str | None = None,
    output_dir: str | Path = "outputs",
    *,
    data: dict[str, Any] | None = None,
    accelerator: str = "auto",
    keep_volumes: bool = False,
    **settings: Any,
) -> list[VolumeRecord]:
    """Measure each volume at a path as a task says, and reconstruct it from that, as ``predict`` does, on one device.

    What is finished with the same settings is left as it is, and found again. For what was really measured, for several
    devices or with TensorBoard: ``Trainer.predict(ReconstructionModule(...), datamodule=VolumeDataModule(...))``.

    Args:
        path: a volume, a folder of volumes or a DICOM series, see ``VolumeDataModule``.
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        method: a name in ``METHODS``; by default ``dds``.
        output_dir: where results go: a folder ``<task>/<volume>`` of each.
        data: further arguments of ``VolumeDataModule``, such as ``{"image_size": 256, "slices": "20:44"}``.
        accelerator: of Lightning: ``cpu``, ``gpu`` or ``auto``.
        keep_volumes: whether the records have the volumes too, all of which are then in memory.
        **settings: further ones of ``ReconstructionModule``, such as ``views``, ``acc``, ``steps``, ``samples``.

    Returns:
        a record of each volume, in the order of their names.

    Raises:
        InputError: one of the settings or one of the volumes cannot be used; nothing is written then.
        WriteError: what the disk refused to take.
    """
    check_kinds(reconstruct_folder, locals())
    check_task(task)
    scans = VolumeDataModule(Path(path), modality=SETTINGS[task][0], **(data or {}))
    module = ReconstructionModule(
        task, method, output_dir=Path(output_dir), keep_volumes=keep_volumes, split="volumes", **settings
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    records: Any = trainer.predict(module, datamodule=scans, return_predictions=True)
    return list(records)
