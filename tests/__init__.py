"""The tests, and what checks the shapes that they pass: jaxtyping's hook on imports asks for it by name."""

from tests import shapes as shapes
