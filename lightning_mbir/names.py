"""Names that help needs without importing what they name; tests keep them in step."""

METHOD_NAMES = (
    "dds",
    "diffusion_mbir",
    "admm_tv",
    "fbp",
    "sirt",
    "zero_filled",
    "score_slices",
    "mcg",
    "dps",
    "diffpir",
    "tpdm",
    "cgls",
    "sense",
    "l1_wavelet",
    "fbp_unet",
)
"""The keys of ``lightning_mbir.reconstruction.METHODS``, in their order."""
