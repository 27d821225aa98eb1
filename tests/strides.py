"""The output strides of backbones in tests."""


def half_stride(name: str, dilated: bool) -> int:
    """The `output_stride` that halves a backbone's usual stride if `dilated`, else 0: the usual one."""
    if not dilated:
        return 0
    return 4 if name == 'resnet_tiny' else 16
