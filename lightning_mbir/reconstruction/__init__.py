"""The whole method: tasks, ``reconstruct``, metrics, and the Lightning module that runs them over volumes."""

from typing import TYPE_CHECKING

from lightning_mbir.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_mbir.methods.candidates import Budget as Budget
    from lightning_mbir.methods.catalog import METHODS as METHODS
    from lightning_mbir.methods.method import Method as Method
    from lightning_mbir.methods.method import method as method
    from lightning_mbir.methods.priors import Prior as Prior
    from lightning_mbir.methods.problem import Problem as Problem
    from lightning_mbir.methods.reconstruct import reconstruct as reconstruct
    from lightning_mbir.methods.run import Reconstruction as Reconstruction
    from lightning_mbir.methods.samples import PosteriorSamples as PosteriorSamples
    from lightning_mbir.methods.samples import reconstruct_samples as reconstruct_samples
    from lightning_mbir.methods.tasks import TASKS as TASKS
    from lightning_mbir.methods.tasks import Task as Task
    from lightning_mbir.methods.trials import Tuning as Tuning
    from lightning_mbir.reconstruction.folder import reconstruct_folder as reconstruct_folder
    from lightning_mbir.reconstruction.measured import measured_operator as measured_operator
    from lightning_mbir.reconstruction.measured import part_of as part_of
    from lightning_mbir.reconstruction.module import ReconstructionModule as ReconstructionModule
    from lightning_mbir.reconstruction.pages import write_report as write_report
    from lightning_mbir.reconstruction.record import VolumeRecord as VolumeRecord
    from lightning_mbir.report.calibration import calibrate as calibrate
    from lightning_mbir.report.metrics import image_metrics as image_metrics
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
