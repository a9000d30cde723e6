# %% [markdown]
# # Can it undo a measurement of my own?
#
# **Yes: an operator is two functions, and every method takes it.** Here a coarse detector sees blocks of 4 x 4 pixels.
# The class below is all that has to be written.

# %% tags=["parameters"]
path = None  # "scan.nii.gz"; without one, a chest is drawn
slices, size = "12:20", 128
block, steps = 4, 20

# %%
import torch

from lightning_mbir import (
    LinearOperator,
    Place,
    Scale,
    VolumeDataModule,
    image_metrics,
    picture_window,
    reconstruct,
    volumes_figure,
)


class Blocks(LinearOperator):
    """Means over blocks of pixels: ``(..., Y, X)`` to ``(..., Y / block, X / block)``."""

    def __init__(self, size: int, block: int) -> None:
        super().__init__()
        self.block = block
        self.domain_shape = (size, size)
        self.range_shape = (size // block, size // block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.check_domain(x)
        rows, columns = self.range_shape
        return x.unflatten(-1, (columns, self.block)).unflatten(-3, (rows, self.block)).mean((-3, -1))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self.check_range(y)
        return y.repeat_interleave(self.block, -2).repeat_interleave(self.block, -1) / self.block**2


# %% [markdown]
# The adjoint has to be exact, or methods converge to something else. That is tested with random numbers, in double
# precision: `<A x, y> = <x, A* y>`.

# %%
exact = Blocks(size, block).double()
x, y = torch.rand(3, *exact.domain_shape).double(), torch.rand(3, *exact.range_shape).double()
gap = abs((exact(x) * y).sum() - (x * exact.adjoint(y)).sum()) / (exact(x).norm() * y.norm())
print(f"adjoint: {gap:.1e}")

# %%
volume = VolumeDataModule(path, modality="ct", image_size=size, slices=slices).scan(0)
truth = volume.data
operator = Blocks(size, block)
measured = operator(truth)
results = {
    "ADMM-TV": reconstruct(measured, operator, method="admm_tv", rho=0.1, lam=1e-3, steps=3 * steps),
    "dds": reconstruct(measured, operator, "ct", "dds", steps=steps, volume=volume.name),
}
images = {"as measured": block**2 * operator.adjoint(measured), **{name: r.volume for name, r in results.items()}}
scores = {name: image_metrics(image, truth, 0.0576) for name, image in images.items()}  # 3000 HU, in 1/mm
for name, score in scores.items():
    print(f"{name:12} {score['axial']['psnr']:.1f} dB")

# %%
volumes_figure(
    f"{volume.name}, blocks of {block} x {block} pixels",
    {"ground truth": truth, **images},
    Place.of(truth, volume.affine),
    Scale.of("ct", picture_window(truth, "ct")),
    metrics=scores,
)

# %% [markdown]
# On the command line: `predict --operator my_module.Blocks --trust my_module`. [Extending](../extending.md) has that,
# and operators on whole volumes (`separable = False`).
#
# **What this cannot tell:** whether the options are right. The defaults are for no measurement in particular; search
# them with `tune=True`, or on volumes that you know.
