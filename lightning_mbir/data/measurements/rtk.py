"""Geometries of RTK, ``RTKThreeDCircularGeometry``, with the stack of projections beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mbir.data.measurements.angles import looks_like_radians
from lightning_mbir.data.measurements.scan import modular_geometry, on_arc
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

ROOT = "RTKThreeDCircularGeometry"
PARAMETERS = (
    *("SourceToIsocenterDistance", "SourceToDetectorDistance", "GantryAngle", "OutOfPlaneAngle", "InPlaneAngle"),
    *("SourceOffsetX", "SourceOffsetY", "ProjectionOffsetX", "ProjectionOffsetY"),
)
NAMES = {name.lower(): name for name in (*PARAMETERS, "RadiusCylindricalDetector", "Matrix", "Projection")}
NAMES |= {f"collimation{side}": "" for side in ("uinf", "usup", "vinf", "vsup")} | {"angle": "GantryAngle"}
"""Elements by their names in small letters, as RTK compares them (``Angle`` is that of older files); jaws are not
heeded."""
VERSIONS = ("2", "3")
STACKS = (".mha", ".mhd", ".nrrd", ".nhdr")
AXES = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""From RTK's axes, of which y is that of rotation, to ours."""
MATRIX = 1e-3
"""What entries of a matrix may be off by, as in RTK."""
LARGEST = 1 << 28
"""Bytes of an XML file."""


def read_rtk(path: Path, image_size: int = 0) -> tuple[Tensor, dict[str, Any], NDArray[Any], tuple[str, ...], bool]:
    """Projections of RTK: the geometry, and line integrals in a MetaImage or NRRD file of the same name.

    Conventions are those of RTK's page "3D circular projection geometry". With all at 0 the source is at
    ``(SourceOffsetX, SourceOffsetY, SourceToIsocenterDistance)`` and the point of the detector with the coordinates
    ``(0, 0)`` at ``(ProjectionOffsetX, ProjectionOffsetY, SourceToIsocenterDistance - SourceToDetectorDistance)``.
    Both are then turned by ``Ry(GantryAngle) Rx(OutOfPlaneAngle) Rz(InPlaneAngle)``, degrees, right-handed, about the
    isocentre. Where the projections lie on the detector is told by the origin and spacing of their file. Ours are
    ``(x, -z, y)`` of RTK's axes: slices go along its y, the axis of rotation, columns along its x, rows against its z.

    Args:
        path: the ``.xml`` file.
        image_size: pixels along a side of a slice; 0 for as many as columns.

    Returns:
        ``(views, rows, columns)``, the arguments of ``ModularBeam``, an affine ``(4, 4)`` from voxels ``(x, y, z)`` to
        our axes in mm from the isocentre, notes, and that sides are not known.

    Raises:
        InputError: a file of another kind or version, no projections beside it or another number of them, parallel
            rays, parameters that are missing in some views, told twice, not finite or not those of the view's matrix.
    """
    values, radius, left_out = read_rtk_geometry(path)
    stack = _stack(path)
    y, origin, spacing = _projections(stack)
    if len(y) != len(values):
        raise InputError(f"{path}: has {len(values)} views, {stack.name} {len(y)} projections; give as many of both")
    rows, columns = y.shape[1:]
    middle = [start + (n - 1) / 2 * step for start, n, step in zip(origin, (columns, rows), spacing, strict=True)]
    views = rtk_views(values, (middle[0], middle[1]), spacing, radius)
    geometry, affine, notes = modular_geometry(path, views, (rows, columns), radius, image_size)
    return y, geometry, affine, (f"line integrals of {stack.name}", *left_out, *notes), False


def read_rtk_geometry(path: Path) -> tuple[NDArray[Any], float | None, tuple[str, ...]]:
    """The parameters of each view, ``(views, 9)`` in the order of ``PARAMETERS``, the radius of a cylindrical detector
    in mm, and notes.

    A parameter stands before all views, or in each of them; RTK itself would go on with that of the view before. Where
    a view has its matrix, that has to be the one of its parameters, as RTK asks for too.

    Raises:
        InputError: see ``read_rtk``.
    """
    check_fits(f"{path}: the geometry", 10 * path.stat().st_size, "give a smaller file")
    text = path.read_bytes()
    if len(text) > LARGEST or b"<!ENTITY" in text:
        raise InputError(
            f"{path}: no geometry of RTK would be so large or define entities; give the file that RTK wrote"
        )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: is no XML ({error}); give the geometry that RTK wrote") from error
    if root.tag != ROOT:
        raise InputError(f"{path}: is a <{root.tag}>; give a geometry of RTK, <{ROOT}>")
    if (version := root.get("version", VERSIONS[-1])) not in VERSIONS:
        raise InputError(f"{path}: is of version {version[:20]!r}, {' and '.join(VERSIONS)} are read; write it anew")
    shared, projections = _told(path, root, "the file"), root.findall("Projection")
    if not projections:
        raise InputError(f"{path}: has no <Projection>; give the geometry of a scan")
    own = [_told(path, element, f"view {view}") for view, element in enumerate(projections)]
    of_views = {name for told in own for name in told}
    if beside := of_views.difference(PARAMETERS):
        raise InputError(f"{path}: {', '.join(sorted(beside))} is one for all views; give it once before them")
    for view, told in enumerate(own):
        needed = [name for name in PARAMETERS if name in of_views or (name in PARAMETERS[:3] and name not in shared)]
        missing = [name for name in needed if name not in told]
        if missing:
            raise InputError(
                f"{path}: view {view} lacks {', '.join(missing)}; give it in each view"
                + ("" if of_views.issuperset(missing) else ", or once before them")
            )
    values = np.array([[told.get(name, shared.get(name, 0.0)) for name in PARAMETERS] for told in own])
    if looks_like_radians(values[:, 2]):
        raise InputError(
            f"{path}: GantryAngle covers {np.ptp(values[:, 2]):.4g} with {len(values)} views, which looks like "
            "radians; give degrees"
        )
    parallel = np.flatnonzero(values[:, 1] == 0)
    if len(parallel):
        raise InputError(
            f"{path}: view {parallel[0]} has parallel rays (SourceToDetectorDistance 0), which are not read"
        )
    for view, element in enumerate(projections):
        _check_matrix(path, view, element, values[view])
    jaws = any(element.tag.lower().startswith("collimation") for element in root.iter())
    notes = ("collimation left out: bins behind the jaws count as measured",) if jaws else ()
    return values, shared.get("RadiusCylindricalDetector") or None, notes


def _told(path: Path, parent: ElementTree.Element, where: str) -> dict[str, float]:
    """The numbers right below an element, by their names.

    Raises:
        InputError: a name that the format does not have, one that is there twice, what is no finite number.
    """
    found: dict[str, float] = {}
    for element in parent:
        name = NAMES.get(element.tag.lower())
        if name is None:
            raise InputError(
                f"{path}: {where} has <{element.tag[:40]}>, which no geometry of RTK has; correct its name"
            )
        if name in found:
            raise InputError(f"{path}: {where} has {name} twice; leave one of them out")
        if name not in ("", "Matrix", "Projection"):
            found[name] = _number(path, element, name)
    return found


def _check_matrix(path: Path, view: int, element: ElementTree.Element, values: NDArray[Any]) -> None:
    """Raise where a view has a matrix that is not the one of its parameters.

    It takes a point in RTK's axes to the detector, in homogeneous coordinates (RTK's page "3D circular projection
    geometry").
    """
    given = next((one for one in element if one.tag.lower() == "matrix"), None)
    if given is None:
        return
    try:
        matrix = np.array([float(word) for word in (given.text or "").split()]).reshape(3, 4)
    except ValueError as error:
        raise InputError(f"{path}: the matrix of view {view} is no 3 x 4 numbers ({error})") from error
    isocenter, total, gantry, out_of_plane, in_plane, source_x, source_y, offset_x, offset_y = values
    turn = _about(1, np.array([gantry])) @ _about(0, np.array([out_of_plane])) @ _about(2, np.array([in_plane]))
    shifted = np.hstack((turn[0].T, [[-source_x], [-source_y], [-isocenter]]))
    project = np.array([[-total, 0, source_x - offset_x], [0, -total, source_y - offset_y], [0, 0, 1.0]])
    expected = project @ shifted
    if not np.allclose(matrix, expected, rtol=1e-5, atol=MATRIX):
        off = float(np.nanmax(np.abs(matrix - expected), initial=0.0))
        raise InputError(
            f"{path}: the matrix of view {view} is not the one of its parameters (off by up to {off:.4g}), so one of "
            "them is wrong; write the geometry anew with RTK"
        )


def rtk_views(
    values: NDArray[Any], middle: tuple[float, float], spacing: tuple[float, float], radius: float | None = None
) -> NDArray[Any]:
    """The table that ``ModularBeam`` takes, ``(views, 12)`` mm.

    Args:
        values: ``(views, 9)``, as ``read_rtk_geometry`` gives them.
        middle: ``(x, y)`` coordinates of the middle of the projections on the detector, mm.
        spacing: ``(x, y)``, from a column and from a row to the next, mm.
        radius: of a cylindrical detector, which touches the flat one where x is 0.
    """
    isocenter, total, gantry, out_of_plane, in_plane, source_x, source_y, offset_x, offset_y = values.T
    turn = _about(1, gantry) @ _about(0, out_of_plane) @ _about(2, in_plane)
    zero, one = np.zeros_like(total), np.ones_like(total)
    source = np.stack((source_x, source_y, isocenter), 1)
    point = np.stack((offset_x + middle[0], offset_y + middle[1], isocenter - total), 1)
    across = np.stack((one, zero, zero), 1)
    if radius is not None:
        tangent = np.stack((zero, point[:, 1], point[:, 2]), 1)
        inward = np.stack((zero, zero, np.sign(total)), 1)
        point, across = on_arc(tangent, across, inward, radius, point[:, 0])
    up = np.stack((zero, one, zero), 1)
    parts = np.stack((source, point, spacing[0] * across, spacing[1] * up), 1)
    return np.asarray((parts @ turn.transpose(0, 2, 1) @ AXES.T).reshape(-1, 12))


def _about(axis: int, degrees: NDArray[Any]) -> NDArray[Any]:
    """Rotations ``(views, 3, 3)`` about an axis, right-handed."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.zeros((len(cos), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, a, a] = matrix[:, b, b] = cos
    matrix[:, a, b], matrix[:, b, a] = -sin, sin
    return matrix


def _number(path: Path, element: ElementTree.Element | None, name: str) -> float:
    text = "" if element is None or element.text is None else element.text.strip()
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{path}: {name} is {text[:40]!r}; give a number") from error
    if not np.isfinite(value):
        raise InputError(f"{path}: {name} is {text}; give a finite number")
    return value


def _stack(path: Path) -> Path:
    beside = [path.with_suffix(suffix) for suffix in STACKS if path.with_suffix(suffix).is_file()]
    if len(beside) != 1:
        found = " and ".join(file.name for file in beside) or "none"
        raise InputError(
            f"{path}: the projections belong beside it, in one file of the same name ({', '.join(STACKS)}); there is "
            f"{found}"
        )
    return beside[0]


def _projections(path: Path) -> tuple[Tensor, tuple[float, float], tuple[float, float]]:
    """Line integrals ``(views, rows, columns)``, and origin and spacing ``(x, y)`` in mm."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        check_fits(f"{path}: projections", 8 * int(np.prod(size)), "give fewer")
        if len(size) != 3 or reader.GetNumberOfComponents() != 1:
            raise InputError(f"{path}: has {len(size)} dimensions; give a stack of projections, (columns, rows, views)")
        image = reader.Execute()
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: cannot be read ({last}); the file may be damaged or cut short") from error
    if not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6):
        raise InputError(f"{path}: the axes of the projections are turned; give a stack with the identity as direction")
    y = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))
    if not bool(torch.isfinite(y).all()):
        raise InputError(f"{path}: projections have NaN or infinite values; correct them first")
    (x0, y0, _), (dx, dy, _) = image.GetOrigin(), image.GetSpacing()
    return y, (x0, y0), (dx, dy)
