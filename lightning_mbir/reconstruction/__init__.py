"""The whole method: tasks, ``reconstruct``, metrics, pictures, and the Lightning module that runs them."""

from lightning_mbir.reconstruction.methods import METHODS
from lightning_mbir.reconstruction.metrics import image_metrics
from lightning_mbir.reconstruction.module import ReconstructionModule
from lightning_mbir.reconstruction.reconstruct import Prior, Reconstruction, reconstruct
from lightning_mbir.reconstruction.samples import PosteriorSamples, calibrate, reconstruct_samples
from lightning_mbir.reconstruction.tasks import TASKS, Task

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
