"""The optimiser of the embedded foundation: Muon for its inner matrices, AdamW for the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix by its momentum
made orthogonal. Scaled as in Moonlight (arXiv 2502.16982), it takes AdamW's learning rate and
weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_simmat.model.tiny import TinyNetwork

LEAST = 16
"""Rows and columns from which a matrix is worth Muon's work."""


class Hybrid:
    """`torch.optim.Muon` and `torch.optim.AdamW` on the parameters of a network, as one.

    Parameters
    ----------
    network
        In memory format channels last, in which a convolution's kernel is a matrix: a row of all
        its inputs for each output. Its first and last layers are AdamW's, as is usual.
    rate, decay
        Learning rate and weight decay (of matrices and kernels).
    """

    def __init__(self, network: TinyNetwork, rate: float, decay: float) -> None:
        ends = (network.image_encoder.patch_embed.proj, network.image_encoder.dense)
        inner = [
            module.weight
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and min(module.weight.shape[:2]) >= LEAST
            and module not in ends
        ]
        known = {id(weight) for weight in inner}
        others = [p for p in network.parameters() if id(p) not in known]
        # The same memory seen as a matrix; its gradient is put there before a step.
        self._views = [(weight, nn.Parameter(_matrix(weight.data))) for weight in inner]
        self.muon: torch.optim.Optimizer = torch.optim.Muon(
            [view for _, view in self._views],
            lr=rate,
            weight_decay=decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adam = torch.optim.AdamW(
            [
                {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
        )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of both."""
        for group in (*self.muon.param_groups, *self.adam.param_groups):
            group["lr"] = rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()
        for weight, view in self._views:
            weight.grad = view.grad = None

    def step(self) -> None:
        """Move the parameters by their gradients."""
        for weight, view in self._views:
            view.grad = None if weight.grad is None else _matrix(weight.grad)
        self.muon.step()
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def _matrix(kernel: Tensor) -> Tensor:
    """(out, in[, kh, kw]) -> (out, kh * kw * in); of what lies in memory in this order a view."""
    return kernel if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
