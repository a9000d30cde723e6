"""Training of a prior, and what is looked at meanwhile."""

from typing import TYPE_CHECKING

from lightning_mbir.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_mbir.prior.training.shared import BestCheckpoint as BestCheckpoint  # the path in configurations
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
