"""The optimizer of pretraining: Muon for the inner matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_simmat.models.tiny import TinyNetwork

MIN_MUON_SIDE = 16
"""Smallest number of rows and columns for which a matrix is given to Muon."""
PRETRAINED_RATE = 0.3
"""Learning rate of pretrained parameters, relative to that of the others."""
NO_MUON = "torch {} has no Muon, which pretraining needs. Update torch to 2.9 or newer."


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` on the parameters of a network, as one optimizer.

    Parameters
    ----------
    network
        In memory format channels last, in which a convolution's kernel is a matrix: one row for
        each output, with all its inputs. Its first and last layers are AdamW's, as is usual.
    rate, decay
        Learning rate and weight decay (of matrices and kernels).
    pretrained
        Parameters that AdamW trains at `PRETRAINED_RATE` times the rate, without decay.
    """

    def __init__(
        self,
        network: TinyNetwork,
        rate: float,
        decay: float,
        pretrained: Sequence[nn.Parameter] = (),
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(NO_MUON.format(torch.__version__))
        super().__init__(list(network.parameters()), {"lr": rate})
        ends = (network.image_encoder.patch_embed.proj, network.image_encoder.dense)
        slow = {id(parameter) for parameter in pretrained}
        inner = [
            module.weight
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and min(module.weight.shape[:2]) >= MIN_MUON_SIDE
            and module not in ends
            and id(module.weight) not in slow
        ]
        known = {id(weight) for weight in inner} | slow
        others = [p for p in network.parameters() if id(p) not in known]
        # Views of the same memory as matrices, whose gradients are set before each step.
        self._views = [(weight, nn.Parameter(_matrix(weight.data))) for weight in inner]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if pretrained:
            groups.append({"params": list(pretrained), "weight_decay": 0.0, "slow": True})
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
            "muon": torch.optim.Muon(
                [view for _, view in self._views],
                lr=rate,
                weight_decay=decay,
                adjust_lr_fn="match_rms_adamw",
            ),
        }

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes no closure
        """Move the parameters by their gradients, at the rate of `param_groups`."""
        assert closure is None
        for weight, view in self._views:
            view.grad = None if weight.grad is None else _matrix(weight.grad)
        for part in self._parts.values():
            for group in part.param_groups:
                factor = PRETRAINED_RATE if group.get("slow") else 1.0
                group["lr"] = factor * self.param_groups[0]["lr"]
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor:
    """(out, in[, kh, kw]) -> (out, kh * kw * in); a view if that is the order in memory."""
    return kernel if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
