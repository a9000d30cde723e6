"""An operator of a user's own, by its class path, in place of what a task would simulate."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.lazy import imported
from lightning_mbir.methods.catalog import source_sha256
from lightning_mbir.physics import LinearOperator, RealDomain


@dataclass(frozen=True)
class OwnOperator:
    """What makes a ``LinearOperator`` for slices of a size: a class, or any function.

    It is given those of ``image_size`` (pixels), ``pixel_size`` (mm) and ``seed`` that it has arguments for, and the
    options; see docs/extending.md for a whole example.

    Attributes:
        path: ``package.module.name``.
        options: further arguments.

    Raises:
        InputError: nothing there that could be called.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self._made):
            raise InputError(f"--operator {self.path}: neither a class nor a function (docs/extending.md)")

    @property
    def _made(self) -> Any:
        return imported("--operator", self.path, LinearOperator)

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on: the path, the options, and the version of the file."""
        source = {"operator": self.path, "operator_sha256": source_sha256(self._made)}
        return {**source, "operator_options": self.options} if self.options else source

    def build(self, image_size: int, pixel_size: float, seed: int, complex: bool) -> LinearOperator:
        """The operator for slices of ``image_size`` pixels; on magnitudes where ``complex`` is false.

        Raises:
            InputError: options that it does not take, or something else than a ``LinearOperator``.
        """
        made = self._made
        takes = inspect.signature(made).parameters
        known = {"image_size": image_size, "pixel_size": pixel_size, "seed": seed}
        given = {name: value for name, value in known.items() if name in takes}
        try:
            operator = made(**given, **self.options)
        except TypeError as error:
            raise InputError(
                f"--operator {self.path}: cannot be made ({error}); see --model.operator_options"
            ) from error
        if not isinstance(operator, LinearOperator):
            kind = type(operator).__name__
            raise InputError(f"--operator {self.path}: gives a {kind}, no LinearOperator (docs/extending.md)")
        return RealDomain(operator) if operator.domain_complex and not complex else operator
