"""lightning_mbir: 3D medical volumes from too few measurements, with a 2D diffusion prior.

The rooms of the package, each importing only from those before it: ``data``, ``physics``, ``solvers`` and ``prior``,
``samplers``, ``methods``, ``report``, ``reconstruction``; ``cli`` sits on top. Importing this module costs nothing:
import the room that you need.
"""

__version__ = "0.1.0"
