"""Prompts answered from what was encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.answers import Answer
from napari_simmat.engine.compute import Compute
from napari_simmat.engine.embeddings import Embedding
from napari_simmat.engine.frames import Frame
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.results import Result, shrink
from napari_simmat.model.network import Decoded, Placed

if TYPE_CHECKING:
    from napari_simmat.engine.checkpoints.zoo import Model


class PromptDecoder:
    """Answers prompts with a model.

    Parameters
    ----------
    model, compute
        The model, and where its network computes.
    """

    def __init__(self, model: Model, compute: Compute) -> None:
        self.model, self.compute = model, compute

    def check(self, prompt: Prompt, frame: Frame) -> None:
        """Check that a prompt lies in the image.

        Raises
        ------
        ValueError
            If it does not, or its mask's logits are of another image.
        """
        prompt.check_inside(frame.image)
        if prompt.mask is None or prompt.mask.dtype == bool:
            return
        grid = frame.grid(self.compute.network.mask_stride)
        if prompt.mask.shape != grid:
            raise ValueError(
                f"The mask's logits have shape {prompt.mask.shape}, this image needs {grid}; use "
                "the logits of a result on this image, or a bool mask of the image's size."
            )

    def result(self, embedding: Embedding, prompt: Prompt) -> Result:
        """The answer to a prompt, with the mask that the model's description declares."""
        decoded = self._decoded(embedding, prompt)
        logits, quality = decoded.logits.cpu(), decoded.quality.cpu()
        lone = len(prompt.points) == 1 and prompt.box is None and prompt.mask is None
        stock = self.model.spec.mask_choice == "stock"
        chosen = 1 + int(quality[1:].argmax()) if stock and lone else 0
        others = range(1, len(quality))  # SAM's have no order of their own
        order = sorted(others, key=lambda n: -float(quality[n])) if stock else list(others)
        stride = self.compute.network.mask_stride
        return Result(logits, quality, chosen, embedding.frame, stride, order)

    def answer(self, embedding: Embedding, prompt: Prompt) -> Answer:
        """The answer to a prompt, its masks not formed yet."""
        return self._placed(embedding, Placed(*self._decoded(embedding, prompt)))

    def clicked(
        self, embedding: Embedding, points: Sequence[tuple[float, float]], least: float
    ) -> list[Answer]:
        """The answers to lone clicks (y, x) on objects, decoded together.

        One all of whose masks are estimated below `least` may hold estimates alone.
        """
        encoded, frame = embedding
        clicks = torch.tensor(frame.to_input(points), device=self.compute.device)
        with self.compute.inference():
            placed = self.compute.network.decode_clicks(encoded, clicks, least)
        return [self._placed(embedding, one) for one in placed]

    def _placed(self, embedding: Embedding, one: Placed) -> Answer:
        frame, stride = embedding.frame, self.compute.network.mask_stride
        return Answer(one.logits, one.quality.cpu().numpy(), one.top, one.left, frame, stride)

    def _decoded(self, embedding: Embedding, prompt: Prompt) -> Decoded:
        encoded, frame = embedding
        device, stride = self.compute.device, self.compute.network.mask_stride
        points = labels = box = mask = None
        if prompt.points:
            points = torch.tensor(frame.to_input(prompt.points), device=device)
            labels = torch.tensor(prompt.labels, device=device)
        if prompt.box is not None:
            box = torch.tensor(frame.box_to_input(prompt.box), device=device)
        if prompt.mask is not None:
            given = prompt.mask
            logits = shrink(given, frame, stride) if given.dtype == bool else _tensor(given)
            mask = logits.to(device)
        with self.compute.inference():
            return self.compute.network.decode(encoded, points, labels, box, mask)


def _tensor(logits: NDArray[Any]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float32)[None, None]
