"""In-plane resampling of volumes to the size that a prior or an operator works at."""

from __future__ import annotations

from lightning_mbir.data.volumes.volume import Volume


def resize_in_plane(volume: Volume, image_size: int) -> Volume:
    """Pad the slices with zeros to a square, then resize them to ``image_size`` by averaging areas.

    The affine follows, so every voxel keeps its place in the world. A ``volume`` of the right size comes back as it is.
    """
    _, rows, columns = volume.data.shape
    if rows == columns == image_size:
        return volume
    from monai.data import MetaTensor
    from monai.transforms import Compose, Resize, SpatialPad

    side = max(rows, columns)
    # MONAI's affine belongs to the index order (x, y, z).
    image = MetaTensor(volume.data.permute(2, 1, 0)[None], affine=volume.affine)
    steps = Compose([SpatialPad((side, side, -1)), Resize((image_size, image_size, -1), mode="area")])
    resized = steps(image)
    data = resized.as_tensor()[0].permute(2, 1, 0).contiguous()
    return Volume(data, resized.affine.numpy().astype("float64"), volume.name, volume.modality)
