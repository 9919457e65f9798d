"""A model's file and what its header says of it, read once, before any tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.checkpoints.catalog import likely_architecture
from napari_simmat.checkpoints.checkpoint import (
    FileKind,
    ModelCard,
    card_of,
    file_kind,
    read_header,
    read_tensors,
)
from napari_simmat.checkpoints.sam2_names import is_of_hub
from napari_simmat.checkpoints.sam3_names import is_of_sam3_hub
from napari_simmat.checkpoints.sam_weights import mentions_decoder, read_sam_weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ModelFile:
    """A file of a model.

    Attributes
    ----------
    path
        Where it is.
    kind
        By its first bytes, whatever its name.
    card
        Its description; None of a foundation's plain weights, which have none: PyTorch's files, and
        safetensors of SAM 2 and SAM 3 as the Hugging Face Hub has them.
    has_decoder
        Whether plain weights seem to hold micro-sam's decoder, too.
    guess
        Of plain weights the likely architecture; empty of others.
    """

    path: Path
    kind: FileKind
    card: ModelCard | None = None
    has_decoder: bool = False
    guess: str = ""

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Read a header: no torch, no tensor.

        Raises
        ------
        ValueError
            If the file is damaged, foreign or of a newer format.
        OSError
            If it is missing or unreadable.
        """
        if file_kind(path) == "torch":
            guess = likely_architecture(path.stat().st_size)
            return cls(path, "torch", has_decoder=mentions_decoder(path), guess=guess)
        header = read_header(path)
        if not header.is_described and is_of_sam3_hub(header.names):
            return cls(path, "safetensors", guess="sam3")
        if not header.is_described and is_of_hub(header.names):
            guess = likely_architecture(path.stat().st_size)
            return cls(path, "safetensors", guess=guess)
        return cls(path, "safetensors", card_of(path, header))

    @property
    def is_base(self) -> bool:
        """Whether it can be the base of checkpoints."""
        return self.card is None or self.card.is_base

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, in their stored type, by the names of our networks.

        Raises ValueError as `read_sam_weights` and `read_tensors` do.
        """
        return read_sam_weights(self.path) if self.card is None else read_tensors(self.path)
