"""Strides of backbones in tests."""


def half_stride(name: str, dilate: bool) -> int:
    """The `output_stride` of a backbone with maps of twice the resolution, or of its own."""
    if not dilate:
        return 0
    return 4 if name == 'resnet_tiny' else 16
