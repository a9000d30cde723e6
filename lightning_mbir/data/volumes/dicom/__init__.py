"""What DICOM files say: which of a folder are slices, of which series, where they lie, and their pixels."""
