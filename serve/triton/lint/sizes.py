"""Sizes of tensors in bytes, as Triton reserves them."""

from collections.abc import Sequence
from math import prod

LARGEST = 1 << 40
"""More bytes than a server has; Triton ends when it cannot reserve a tensor, for whichever model."""
_BYTES = {
    **dict.fromkeys(("TYPE_BOOL", "TYPE_UINT8", "TYPE_INT8"), 1),
    **dict.fromkeys(("TYPE_UINT16", "TYPE_INT16", "TYPE_FP16", "TYPE_BF16"), 2),
    **dict.fromkeys(("TYPE_UINT64", "TYPE_INT64", "TYPE_FP64"), 8),
}
_OTHERS = 4  # bytes of the other numbers, and of the length field that begins a string


def bytes_of(data_type: int, dims: Sequence[int]) -> int:
    """Return the bytes of a tensor of a Triton data type and concrete dims."""
    from tritonclient.grpc import model_config_pb2 as pb

    name = pb.DataType.Name(data_type) if data_type in pb.DataType.values() else ""
    return prod(dims) * _BYTES.get(name, _OTHERS)
