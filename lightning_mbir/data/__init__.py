"""Files to volumes and slices, and back."""

from lightning_mbir.data.phantoms import chest_phantom, head_phantom
from lightning_mbir.data.slices.datamodule import SliceDataModule
from lightning_mbir.data.volumes.datamodule import VolumeDataModule
from lightning_mbir.data.volumes.resample import resize_in_plane
from lightning_mbir.data.volumes.volume import Volume, list_volumes, read_volume, write_volume

__all__ = [
    "SliceDataModule",
    "Volume",
    "VolumeDataModule",
    "chest_phantom",
    "head_phantom",
    "list_volumes",
    "read_volume",
    "resize_in_plane",
    "write_volume",
]
