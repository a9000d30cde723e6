"""The header of a derived DICOM slice: what stays of its source, and what is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from lightning_mbir.data.volumes.dicom.files import decoding, dicom_header
from lightning_mbir.data.volumes.dicom.frames import Groups, is_enhanced
from lightning_mbir.data.volumes.dicom.slices import Slice
from lightning_mbir.version import __version__

PROGRAM = "lightning_mbir"
CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
PATIENT_GROUPS = (0x0010, 0x0012)
"""Groups of patient and de-identification, which stay whole, private attributes apart."""
STUDY = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "StudyDescription", "ProcedureCodeSequence",
)  # fmt: skip
NEEDED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""What every object has, if need be without a value."""
KEPT = (
    "PatientPosition", "BodyPartExamined", "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionNumber", "SliceThickness", "ContrastBolusAgent", "BurnedInAnnotation", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""What is as true of a derived slice as of its source."""
KEPT_OF = {
    "CT": ("KVP", "GantryDetectorTilt"),
    "MR": (
        "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime",
        "EchoTrainLength", "InversionTime", "FlipAngle", "EchoNumbers", "MagneticFieldStrength", "ImagingFrequency",
        "ImagedNucleus", "SpacingBetweenSlices",
    ),
}  # fmt: skip
NEEDED_OF = {
    "CT": ("KVP", "AcquisitionNumber"),
    "MR": ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"),
}


@dataclass(frozen=True)
class Source:
    """The header of a source file, and what it says of one slice."""

    header: Any
    says: Any

    def get(self, name: str) -> Any:
        """An attribute of the slice, or None."""
        return self.says.get(name)


def source_of(one: Slice, last: Source | None = None) -> Source:
    """The header that a slice was read from; that of ``last``, where it is of the same file.

    Raises:
        InputError: it can no longer be read.
    """
    if last is not None and str(last.header.filename) == str(one.file):
        header = last.header
    else:
        header = dicom_header(one.file, stop_before_pixels=True)
    with decoding(one.file):
        return Source(header, Groups(header, one.frame or 0) if is_enhanced(header) else header)


def derived(
    study: Source, source: Source, one: Slice, series: str, reference: str, now: datetime, description: str
) -> Any:
    """The dataset of a derived slice, without its place and its pixels.

    Args:
        study: of the first slice, whose patient and study all slices get.
        source: what the slice is derived from.
        one: the same, as it was read.
        series: UID of the new series.
        reference: UID of the frame of reference.
        now: when it is made.
        description: how it is made.

    Raises:
        InputError: a value of the source cannot be copied.
    """
    with decoding(one.file, "--write dicom: has a value that cannot be copied"):
        new = _copied(study, source, one.modality)
        _series(new, study, one, series, now)
        _new(new, one, reference, description)
        new.save_as(BytesIO(), enforce_file_format=True)
    return new


def _copied(study: Source, source: Source, modality: str) -> Any:
    """What stays of the study, and of the slice."""
    from pydicom.datadict import keyword_for_tag
    from pydicom.dataset import Dataset

    new: Any = Dataset()
    for tag in sorted(study.header.keys()):  # iterating over a dataset gives its elements, converted
        if not tag.is_private and (tag.group in PATIENT_GROUPS or keyword_for_tag(tag) in STUDY):
            new.add(study.header[tag])
    for name in (*KEPT, *KEPT_OF[modality]):
        if (value := source.get(name)) is not None:
            setattr(new, name, value)
    for name in (*NEEDED, *NEEDED_OF[modality]):
        if name not in new:
            setattr(new, name, None)
    if modality == "MR":  # research mode, where an enhanced source says it in other words
        new.ScanningSequence = new.get("ScanningSequence") or "RM"
        new.SequenceVariant = new.get("SequenceVariant") or "NONE"
    return new


def _new(new: Any, one: Slice, reference: str, description: str) -> None:
    """What is new of a slice, and the image that it is derived from."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    new.SOPClassUID, new.SOPInstanceUID, new.FrameOfReferenceUID = CLASSES[one.modality], generate_uid(), reference
    new.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if one.modality == "CT" else "OTHER"]
    new.DerivationDescription = description[:1024]
    new.SamplesPerPixel, new.PhotometricInterpretation = 1, "MONOCHROME2"
    new.BitsAllocated, new.BitsStored, new.HighBit, new.PixelRepresentation = 16, 16, 15, 0
    meta = new.file_meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = new.SOPClassUID, new.SOPInstanceUID
    image: Any = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = one.sop_class, one.uid
    if one.frame is not None:
        image.ReferencedFrameNumber = one.frame + 1
    image.PurposeOfReferenceCodeSequence = Sequence([_code("121322", "Source image for image processing operation")])
    new.SourceImageSequence = Sequence([image])


def _series(new: Any, study: Source, one: Slice, series: str, now: datetime) -> None:
    """The new series, and the program that made it; the scanner goes to the equipment that contributed."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    new.Modality, new.SeriesInstanceUID = one.modality, series
    new.SeriesNumber = 1000 + (int(one.number) if one.number.isdecimal() else 0)
    new.SeriesDescription = " ".join(filter(None, (one.description[:48], f"({PROGRAM})")))
    new.SeriesDate = new.ContentDate = new.InstanceCreationDate = now.strftime("%Y%m%d")
    new.SeriesTime = new.ContentTime = new.InstanceCreationTime = now.strftime("%H%M%S")
    new.Manufacturer = new.ManufacturerModelName = PROGRAM
    new.SoftwareVersions = __version__
    scanner: Any = Dataset()
    scanner.Manufacturer = study.header.get("Manufacturer") or ""
    scanner.ManufacturerModelName = study.header.get("ManufacturerModelName") or ""
    scanner.PurposeOfReferenceCodeSequence = Sequence([_code("109101", "Acquisition Equipment")])
    new.ContributingEquipmentSequence = Sequence([scanner])


def _code(value: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    code: Any = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
