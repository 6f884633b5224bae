"""A stand-in for Triton's driver, which lets its compiler work for GPUs that this machine does not have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

INTERPRETER_VARIABLE = "TRITON_INTERPRET"


class NoGpu:
    """Answers for a GPU of ``capability``, times ten; each is a device of its own, since Triton caches by device."""

    capability = 90

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """Its number."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """The default stream."""
        return 0


@contextmanager
def no_gpu() -> Iterator[NoGpu]:
    """Within the block, Triton compiles for the GPU that the result names, and launches nothing.

    Raises:
        RuntimeError: Triton's interpreter is switched on, which has replaced the kernels.
    """
    if os.environ.get(INTERPRETER_VARIABLE, "0") != "0":
        raise RuntimeError(f"unset {INTERPRETER_VARIABLE}: the interpreter compiles no kernels")
    stand_in, before = NoGpu(), driver._active
    driver.set_active(stand_in)  # type: ignore[arg-type]
    try:
        yield stand_in
    finally:
        driver._active = before
