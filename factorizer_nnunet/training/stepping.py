"""A training step with fewer launches: one gradient clip, a fused optimizer, and the network compiled in another way.

``nnUNet_factorizer_step`` asks for it; without the variable, the step is nnU-Net's. All give the same numbers up to
rounding. What has been measured is in docs/gpu.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from factorizer_nnunet.network.ops.dispatch import can_use_kernels, inlined_kernels
from factorizer_nnunet.nnunet.environment import STEP_VARIABLE, StepSetting
from factorizer_nnunet.training.labelled_loss import without_waiting

_RECORDED_AFTER = 3  # steps; the first ones compile, warm up and record
_NAMES = {StepSetting.INLINED: "inlined kernels", StepSetting.GRAPHS: "CUDA graphs"}
Target = Any  # a tensor, or a list of them with deep supervision


class GraphedNetwork:
    """A network compiled so that its passes run as CUDA graphs, which start all launches of a pass at once.

    After a few passes, ``log`` gets one line that says whether they do.
    """

    def __init__(self, network: nn.Module, log: Callable[[str], None]) -> None:
        self._compiled = torch.compile(network, mode="reduce-overhead")
        self._log, self._passes = log, 0

    def __call__(self, data: Tensor) -> Any:
        """The network's outputs, which the next call overwrites."""
        self._passes += 1
        if self._passes == _RECORDED_AFTER + 1:
            skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
            without = "torch.compile leaves CUDA graphs out here (TORCH_LOGS=cudagraphs says why)"
            self._log(without if skipped else "training steps run as CUDA graphs")
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(data)


class InlinedNetwork:
    """nnU-Net's compiled network, whose code launches our kernels itself instead of calling operators through Python.

    After the first pass, which compiles it, ``log`` gets one line.
    """

    def __init__(self, network: nn.Module, log: Callable[[str], None]) -> None:
        self._network, self._log, self._compiled = network, log, False

    def __call__(self, data: Tensor) -> Any:
        """The network's outputs."""
        with inlined_kernels():
            output = self._network(data)
        if not self._compiled:
            self._compiled = True
            self._log("training steps are compiled with inlined kernels")
        return output


class SteppingTrainer(nnUNetTrainer):
    """Computes a training step as ``step_setting`` says, which a subclass sets before ``initialize``."""

    step_setting = StepSetting.PLAIN
    loss: nn.Module
    max_gradient_norm: float
    _faster: GraphedNetwork | InlinedNetwork | None = None
    _update_began = False  # that of a step's optimizer

    def initialize(self) -> None:
        """Initialize as nnU-Net does, and prepare CUDA graphs or inlined kernels if they are asked for and possible."""
        super().initialize()
        self.optimizer.register_step_pre_hook(self._begin_update)
        setting, compiles = self.step_setting, self._do_i_compile()
        if setting is not StepSetting.PLAIN:
            self.loss = without_waiting(self.loss)
        if setting not in _NAMES:
            return
        graphs = setting is StepSetting.GRAPHS
        reason = why_no_graphs(self.device, self.is_ddp, compiles) if graphs else why_not_inlined(self.device, compiles)
        if reason:
            self.print_to_log_file(f"{STEP_VARIABLE}={setting.value}, but no {_NAMES[setting]}: {reason}")
        elif graphs:
            # Next to nnU-Net's own compiled network: validation keeps outputs for longer than graphs do.
            network: Any = getattr(self.network, "_orig_mod", self.network)
            self._faster = GraphedNetwork(network, self.print_to_log_file)
        else:
            self._faster = InlinedNetwork(self.network, self.print_to_log_file)

    @property
    def can_free_memory(self) -> bool:
        """Whether ``free_memory`` would free something; subclasses say so."""
        return False

    def free_memory(self) -> None:
        """Free memory of the device that a training can do without; subclasses do."""

    def train_step(self, batch: dict) -> dict:
        """One step on a batch of nnU-Net's; returns its loss. If it lacks memory that can be freed, it is repeated."""
        self._update_began = False
        try:
            return self._step(batch)
        except torch.OutOfMemoryError:
            # Half an update cannot be repeated, nor what other processes have added up with this one.
            if self._update_began or self.is_ddp or not self.can_free_memory:
                raise
        self.free_memory()  # only now: the error kept all that the step had made
        return self._step(batch)

    def _begin_update(self, *_: Any) -> None:
        self._update_began = True

    def _step(self, batch: dict) -> dict:
        """A step as ``step_setting`` says.

        What follows the first lines is nnU-Net's step but for the network that is called and the norm that gradients
        are clipped to, neither of which nnU-Net lets a subclass choose.
        """
        if self.step_setting is StepSetting.PLAIN:
            output: dict = super().train_step(batch)
            return output
        data, target = batch["data"].to(self.device, non_blocking=True), batch["target"]
        many = isinstance(target, list)
        parts = [part.to(self.device, non_blocking=True) for part in (target if many else [target])]
        loss = self._backward(data, parts if many else parts[0])
        scaler = self.grad_scaler
        if scaler is not None:
            self._begin_update()  # gradients can be unscaled only once
            scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_gradient_norm)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        return {"loss": self.read_loss(loss.detach())}

    def read_loss(self, loss: Tensor) -> np.ndarray:
        """The value of a loss, for which the process waits; a subclass may read more with it."""
        value: np.ndarray = loss.cpu().numpy()
        return value

    def _backward(self, data: Tensor, target: Target) -> Tensor:
        """The loss; gradients are in the parameters."""
        if self._faster is not None:
            try:
                return self._backward_through(self._faster, data, target)
            except RuntimeError as error:  # also of the compiler, or because graphs have memory of their own
                lacks_memory = isinstance(error, torch.OutOfMemoryError) and self.can_free_memory
                if self.is_ddp or (lacks_memory and self.step_setting is StepSetting.INLINED):
                    raise  # other processes may have added up gradients; memory is freed first
                self._faster = None
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.print_to_log_file(f"no {_NAMES[self.step_setting]} from now on: {reason}")
        return self._backward_through(self.network, data, target)

    def _backward_through(self, network: Callable[[Tensor], Any], data: Tensor, target: Target) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type) if self.device.type == "cuda" else contextlib.nullcontext():
            loss: Tensor = self.loss(network(data), target)
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
        return loss


def why_no_graphs(device: torch.device, is_ddp: bool, compiles: bool) -> str | None:
    """Why a training cannot use CUDA graphs; None if it can."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if is_ddp:
        return "several GPUs train together"
    return None if compiles else "torch.compile is switched off"


def why_not_inlined(device: torch.device, compiles: bool) -> str | None:
    """Why kernels cannot be inlined into a training's compiled network; None if they can."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if not compiles:
        return "torch.compile is switched off"
    return None if can_use_kernels(torch.empty(1, device=device)) else "this training uses no kernels"
