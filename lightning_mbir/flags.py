"""The flags of the command line that are mostly used, with their help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """A short flag: another name of one of Lightning's arguments."""

    name: str
    target: str
    help: str


RECONSTRUCTION_FLAGS = (
    Flag("--task", "--model.task", "sv_ct (sparse views), la_ct (limited angle) or cs_mri (undersampled k-space)"),
    Flag("--views", "--model.views", "CT: number of views [8; la_ct 90]"),
    Flag("--angle_range", "--model.angle_range", "CT: degrees that the views are spread over [180; la_ct 90]"),
    Flag("--acc", "--model.acc", "MRI: acceleration, all samples over measured ones [8]"),
    Flag("--mask", "--model.mask", "uniform1d, gaussian1d, equispaced, gaussian2d, poisson2d or radial [gaussian1d]"),
    Flag("--photons", "--model.photons", "CT: photons a ray, for counting noise and weights, such as 1e5 [no noise]"),
    Flag("--snr", "--model.snr", "MRI: signal to noise of k-space in dB, such as 30 [no noise]"),
    Flag("--coils", "--model.coils", "MRI: receive coils around the head, with known maps [one that sees all alike]"),
    Flag("--phase", "--model.phase", "MRI: true simulates a smooth image phase [false]"),
    Flag("--method", "--model.method", "how to reconstruct: {methods}, or the class path of your own [dds]"),
    Flag("--samples", "--model.samples", "of the posterior: gives their mean and standard deviation [1]"),
    Flag("--steps", "--model.steps", "noise levels or iterations [the method's own]"),
    Flag("--seed", "--model.seed", "of all noise and the mask; the same seed gives the same volume [0]"),
    Flag("--prior", "--model.prior", "ct, mri, mri_complex, phantom, or the file of a prior [by the task]"),
    Flag("--ckpt_path", "--model.prior", "the same as --prior"),
    Flag("--second_prior", "--model.second_prior", "tpdm: prior of coronal slices, such as ct_coronal or a file"),
    Flag("--network", "--model.network", "file of a trained network, for methods that need one"),
    Flag("--slice_batch", "--model.slice_batch", "slices that pass the network at once [by the memory]"),
    Flag(
        "--model.precision",
        "--model.precision",
        "of the prior: float32, or bfloat16, faster where the processor has it [float32]",
    ),
    Flag("--model.compile", "--model.compile", "true: run the prior through torch.compile [false]"),
    Flag("--output_dir", "--model.output_dir", "where results go [outputs]"),
    Flag("--data.path", "--data.path", "a NIfTI file, a DICOM folder, or a folder of them [a demo phantom]"),
    Flag("--data.measurement", "--data.measurement", "a measured sinogram or k-space (.h5, .npz) instead"),
    Flag("--data.axes", "--data.axes", "what the dimensions of a measured kspace are, such as 'coil y x'"),
    Flag("--data.image_size", "--data.image_size", "slices are resized to this; 0 keeps their size [128]"),
    Flag("--data.slices", "--data.slices", "part of the volume, such as 20:44 [all]"),
    Flag("--trainer.devices", "--trainer.devices", "devices that share the volumes [all there are]"),
    Flag("--config", "--config", "YAML file, or the name of one in configs/"),
)
SIMULATION = ("--task", "--views", "--angle_range", "--acc", "--mask", "--photons", "--snr", "--coils", "--phase")
TEST_FLAGS = (
    Flag("--methods", "--model.methods", "several to compare on the same measurements, such as dds,admm_tv,fbp"),
    Flag("--lpips", "--model.lpips", "true: score by LPIPS too, which needs torchvision and its weights [false]"),
    *RECONSTRUCTION_FLAGS,
)
TRAINING_FLAGS = (
    Flag("--data.path", "--data.path", "a folder of volumes [phantoms]"),
    Flag("--data.modality", "--data.modality", "ct or mri [ct]"),
    Flag("--data.axis", "--data.axis", "axial, coronal or sagittal slices [axial]"),
    Flag("--data.image_size", "--data.image_size", "size of the slices, or several: [128,256] [128]"),
    Flag("--data.complex", "--data.complex", "true: slices with a simulated phase, for complex MRI [false]"),
    Flag("--data.batch_size", "--data.batch_size", "slices a step and device [8]"),
    Flag("--data.num_workers", "--data.num_workers", "processes that read and vary slices [0]"),
    Flag("--data.held_out", "--data.held_out", "patient kept for validation [the last by name]"),
    Flag("--model.network", "--model.network", "light, ncsnpp or monai [light]"),
    Flag("--model.init", "--model.init", "prior to start from: a name or a file"),
    Flag("--model.objective", "--model.objective", "edm or dsm (the paper's) [edm]"),
    Flag("--model.learning_rate", "--model.learning_rate", "[0.0005]"),
    Flag("--model.compile", "--model.compile", "true: run the network through torch.compile [false]"),
    Flag("--steps", "--trainer.max_steps", "optimiser steps [20000]"),
    Flag("--seed", "--seed_everything", "of weights, order and noise"),
    Flag("--output_dir", "--trainer.default_root_dir", "where logs, checkpoints and the prior go [outputs/fit]"),
    Flag("--ckpt_path", "--ckpt_path", "checkpoint to go on from"),
    Flag("--config", "--config", "YAML file, or the name of one in configs/"),
)
UNET_FLAGS = (
    *(flag for flag in RECONSTRUCTION_FLAGS if flag.name in SIMULATION),
    Flag("--data.path", "--data.path", "a folder of volumes, of two patients or more"),
    Flag("--data.image_size", "--data.image_size", "slices are resized to this, as in predict [128]"),
    Flag("--data.batch_size", "--data.batch_size", "slices a step and device [8]"),
    Flag("--data.held_out", "--data.held_out", "patient kept for validation [the last by name]"),
    Flag("--data.variants", "--data.variants", "each volume is measured as it is, and varied, this often in all [32]"),
    Flag("--model.loss", "--model.loss", "l2 or l1 [l2]"),
    Flag("--model.learning_rate", "--model.learning_rate", "[0.001]"),
    Flag("--steps", "--trainer.max_steps", "optimiser steps [2000]"),
    Flag("--seed", "--model.seed", "of the mask, the weights and the order of slices [0]"),
    Flag("--output_dir", "--trainer.default_root_dir", "where logs, checkpoints and the network go [outputs/unet]"),
    Flag("--ckpt_path", "--ckpt_path", "checkpoint to go on from"),
    Flag("--config", "--config", "YAML file, or the name of one in configs/"),
)
SUBCOMMANDS = {
    "predict": ("reconstruct volumes and write them", RECONSTRUCTION_FLAGS),
    "test": ("reconstruct volumes and score them, or compare several methods; writes no volume", TEST_FLAGS),
    "fit": ("train a slice prior", TRAINING_FLAGS),
    "validate": ("score a slice prior on held-out slices", TRAINING_FLAGS),
    "fit_unet": ("train a network for one measurement, for --method fbp_unet", UNET_FLAGS),
}
