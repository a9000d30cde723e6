"""The functional groups of an enhanced multi-frame object: what is said of each frame, and of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HOLDERS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}
"""The sequence in the groups that an attribute of a single slice has gone to."""

MARKS = {
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "NominalPercentageOfRespiratoryPhase": "RespiratorySynchronizationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "KVP": "CTXRayDetailsSequence",
}
"""What may tell frames at the same place apart, and its sequence."""

FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence")


class Groups:
    """What the groups of a frame, then those of all frames, then the object itself say, by the names that attributes of
    a single slice have.

    Args:
        header: the object's.
        frame: from 0.
    """

    def __init__(self, header: Any, frame: int) -> None:
        self.header, self.frame = header, frame

    def get(self, name: str) -> Any:
        """The value of an attribute, or None."""
        holder = HOLDERS.get(name)
        if holder is None:
            return self.header.get(name)
        return next((item.get(name) for item in _items(self.header, self.frame, holder) if name in item), None)


def is_enhanced(header: Any) -> bool:
    """Whether an object has groups of each frame."""
    return bool(header.get("PerFrameFunctionalGroupsSequence"))


def frame_marks(header: Any, frame: int) -> dict[str, str]:
    """What is said of a frame that may tell it from another one at the same place."""
    marks = {
        name: str(item.get(name)) for name, holder in MARKS.items() for item in _items(header, frame, holder)
        if item.get(name) is not None
    }  # fmt: skip
    for holder in FRAME_TYPES:
        for item in _items(header, frame, holder):
            marks["FrameType"] = "\\".join(str(part) for part in item.get("FrameType") or ())
    indices = next((item.get("DimensionIndexValues") for item in _items(header, frame, "FrameContentSequence")), None)
    places = [indices] if isinstance(indices, int) else list(indices or ())
    return {**marks, **{f"dimension {k + 1}": str(index) for k, index in enumerate(places)}}


def _items(header: Any, frame: int, holder: str) -> Iterator[Any]:
    """The items of a sequence in the groups of a frame and in those of all frames."""
    for group in (
        header.PerFrameFunctionalGroupsSequence[frame],
        *(header.get("SharedFunctionalGroupsSequence") or ()),
    ):
        for item in group.get(holder) or ():
            yield item
            break
