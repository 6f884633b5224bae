"""Counts what would wait for a GPU, where there is none."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts values of tensors that are asked for, and copies from the CPU to another device that are not asynchronous.

    Values of the host, which cost nothing, are counted, too: the CPU is the device where a test asks for ``values``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values = self.copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        result, name = function(*args, **(kwargs or {})), function.name()
        self.values += name.startswith("aten::_local_scalar_dense")
        if name.startswith("aten::_to_copy") and args[0].device.type == "cpu" != result.device.type:
            self.copies += not (kwargs or {}).get("non_blocking", False)
        return result
