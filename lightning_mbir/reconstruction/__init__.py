"""The whole method: tasks, ``reconstruct``, metrics, pictures, and the Lightning module that runs them."""

from lightning_mbir.reconstruction.methods import METHODS
from lightning_mbir.reconstruction.metrics import image_metrics
from lightning_mbir.reconstruction.module import ReconstructionModule
from lightning_mbir.reconstruction.reconstruct import Prior, Reconstruction, reconstruct
from lightning_mbir.reconstruction.tasks import TASKS, Task

__all__ = [
    "METHODS",
    "TASKS",
    "Prior",
    "Reconstruction",
    "ReconstructionModule",
    "Task",
    "image_metrics",
    "reconstruct",
]
