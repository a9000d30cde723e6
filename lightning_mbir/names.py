"""Names that help needs without importing what they name; tests keep them in step."""

METHOD_NAMES = ("dds", "diffusion_mbir", "admm_tv", "fbp", "sirt", "zero_filled")
"""The keys of ``lightning_mbir.reconstruction.METHODS``, in their order."""
