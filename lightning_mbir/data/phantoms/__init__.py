"""Volumes that the project draws itself: a chest for CT, a head for MRI, and dead leaves, which are nothing at all.

Anatomy-like, not anatomy: signed distances in mm to closed shapes, drawn one over the other with edges a pixel wide, in
coordinates bent by a smooth random field. Each seed is another person, and the same person at every shape. The axes are
those of files that were read: ``x`` grows to the patient's right, ``y`` to the front, ``z`` to the head.
"""

from lightning_mbir.data.phantoms.chest import chest_phantom
from lightning_mbir.data.phantoms.head import CONTRASTS, head_phantom
from lightning_mbir.data.phantoms.leaves import leaves_phantom

__all__ = ["CONTRASTS", "chest_phantom", "head_phantom", "leaves_phantom"]
