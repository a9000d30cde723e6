"""The whole method: tasks, ``reconstruct``, metrics, pictures, and the Lightning module that runs them."""

from lightning_mbir.methods.catalog import METHODS
from lightning_mbir.methods.priors import Prior
from lightning_mbir.methods.reconstruct import Reconstruction, reconstruct
from lightning_mbir.methods.samples import PosteriorSamples, reconstruct_samples
from lightning_mbir.methods.tasks import TASKS, Task
from lightning_mbir.reconstruction.module import ReconstructionModule
from lightning_mbir.report.calibration import calibrate
from lightning_mbir.report.metrics import image_metrics

__all__ = [
    "METHODS",
    "TASKS",
    "PosteriorSamples",
    "Prior",
    "Reconstruction",
    "ReconstructionModule",
    "Task",
    "calibrate",
    "image_metrics",
    "reconstruct",
    "reconstruct_samples",
]
