"""`Model`: a network and its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_simmat.models.spec import ModelSpec

if TYPE_CHECKING:
    from napari_simmat.models.network import Network


@dataclass(frozen=True)
class Model:
    """A network and its description.

    Parameters
    ----------
    spec
        The description; ``spec.base.sha256`` is the hash of the base's file, also of a base itself.
    network
        In evaluation mode, float32, on the CPU.
    fingerprint
        Hash of the content and its base: equal fingerprints give equal masks.
    """

    spec: ModelSpec
    network: Network
    fingerprint: str
