"""The version, in one place: packaging reads it here, results name it, and a release's tag has to be ``v`` and this."""

__version__ = "0.1.0"
