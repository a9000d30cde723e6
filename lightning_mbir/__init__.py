"""lightning_mbir: 3D medical volumes from too few measurements, with a 2D diffusion prior.

What a notebook or a script needs is here: the names below, told in docs/api/index.md. Those in ``__all__`` of the rooms
``data``, ``physics``, ``solvers``, ``prior``, ``samplers`` and ``reconstruction`` are public too; all else is private.

The rooms of the package, each importing only from those before it: ``data``, ``physics``, ``solvers`` and ``prior``,
``samplers``, ``methods``, ``report``, ``reconstruction``; ``cli`` sits on top. Importing this module costs nothing: a
name is imported when it is asked for.
"""

TYPE_CHECKING = False  # which type checkers take for true; `typing` is what importing this would cost

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
    from lightning_mbir.errors import InputError as InputError
    from lightning_mbir.host_slabs import HostSlabs as HostSlabs
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
    from lightning_mbir.physics import MASKS as MASKS
    from lightning_mbir.physics import CartesianFourier3D as CartesianFourier3D
    from lightning_mbir.physics import ConeBeam as ConeBeam
    from lightning_mbir.physics import FanBeam as FanBeam
    from lightning_mbir.physics import FourierSampling as FourierSampling
    from lightning_mbir.physics import LinearOperator as LinearOperator
    from lightning_mbir.physics import MatrixOperator as MatrixOperator
    from lightning_mbir.physics import ModularBeam as ModularBeam
    from lightning_mbir.physics import MultiCoilFourier as MultiCoilFourier
    from lightning_mbir.physics import NoisySinogram as NoisySinogram
    from lightning_mbir.physics import NonCartesianFourier as NonCartesianFourier
    from lightning_mbir.physics import OffResonance as OffResonance
    from lightning_mbir.physics import ParallelBeam as ParallelBeam
    from lightning_mbir.physics import RealDomain as RealDomain
    from lightning_mbir.physics import Weighted as Weighted
    from lightning_mbir.physics import complex_gaussian as complex_gaussian
    from lightning_mbir.physics import estimate_coil_maps as estimate_coil_maps
    from lightning_mbir.physics import helical_trajectory as helical_trajectory
    from lightning_mbir.physics import loop_coil_maps as loop_coil_maps
    from lightning_mbir.physics import make_mask as make_mask
    from lightning_mbir.physics import noise_sigma as noise_sigma
    from lightning_mbir.physics import poisson_counts as poisson_counts
    from lightning_mbir.physics import radial_trajectory as radial_trajectory
    from lightning_mbir.physics import spiral_trajectory as spiral_trajectory
    from lightning_mbir.prior.checkpoints.checkpoint import load_prior as load_prior
    from lightning_mbir.prior.checkpoints.checkpoint import save_prior as save_prior
    from lightning_mbir.prior.checkpoints.score_sde import import_score_sde as import_score_sde
    from lightning_mbir.prior.convert import push_prior as push_prior
    from lightning_mbir.prior.denoiser import SliceDenoiser as SliceDenoiser
    from lightning_mbir.prior.denoiser import Unit as Unit
    from lightning_mbir.prior.epsilon import EpsilonNetwork as EpsilonNetwork
    from lightning_mbir.prior.training.module import ScorePriorModule as ScorePriorModule
    from lightning_mbir.reconstruction.bundle import export_bundle as export_bundle
    from lightning_mbir.reconstruction.folder import reconstruct_folder as reconstruct_folder
    from lightning_mbir.reconstruction.measured import measured_operator as measured_operator
    from lightning_mbir.reconstruction.measured import part_of as part_of
    from lightning_mbir.reconstruction.module import ReconstructionModule as ReconstructionModule
    from lightning_mbir.reconstruction.pages import write_report as write_report
    from lightning_mbir.reconstruction.record import VolumeRecord as VolumeRecord
    from lightning_mbir.report.calibration import calibrate as calibrate
    from lightning_mbir.report.figures import calibration_figure as calibration_figure
    from lightning_mbir.report.figures import volumes_figure as volumes_figure
    from lightning_mbir.report.metrics import image_metrics as image_metrics
    from lightning_mbir.report.montage import montage as montage
    from lightning_mbir.report.scale import Scale as Scale
    from lightning_mbir.report.scale import picture_window as picture_window
    from lightning_mbir.report.sheet import Place as Place
    from lightning_mbir.version import __version__ as __version__
else:

    def __getattr__(name):
        """The first name that is asked for; from then on ``lazy_names`` answers."""
        from lightning_mbir.lazy import lazy_names

        here = globals()
        here["__getattr__"], here["__dir__"], here["__all__"] = lazy_names(__name__, __file__)
        return here["__all__"] if name == "__all__" else here["__getattr__"](name)

    def __dir__():
        return __getattr__("__all__")
