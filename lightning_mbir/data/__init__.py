"""Files to volumes, slices and measurements, and back."""

from typing import TYPE_CHECKING

from lightning_mbir.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_mbir.data.measurements.measurement import Measurement as Measurement
    from lightning_mbir.data.measurements.measurement import read_measurement as read_measurement
    from lightning_mbir.data.measurements.options import MeasurementOptions as MeasurementOptions
    from lightning_mbir.data.phantoms.chest import chest_phantom as chest_phantom
    from lightning_mbir.data.phantoms.head import head_phantom as head_phantom
    from lightning_mbir.data.slices.datamodule import SliceDataModule as SliceDataModule
    from lightning_mbir.data.volumes.datamodule import VolumeDataModule as VolumeDataModule
    from lightning_mbir.data.volumes.listing import list_volumes as list_volumes
    from lightning_mbir.data.volumes.reading import read_volume as read_volume
    from lightning_mbir.data.volumes.resample import resize_in_plane as resize_in_plane
    from lightning_mbir.data.volumes.volume import Volume as Volume
    from lightning_mbir.data.volumes.writing import write_volume as write_volume
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
