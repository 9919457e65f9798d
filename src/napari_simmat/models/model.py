"""A network with what describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_simmat.models.spec import ModelSpec

if TYPE_CHECKING:
    from napari_simmat.models.network import Network


@dataclass(frozen=True)
class Model:
    """A network with what describes it.

    Parameters
    ----------
    spec
        The description; ``spec.base.sha256`` is that of the base's file, also if this is a base.
    network
        In evaluation mode, float32, on the CPU.
    fingerprint
        Of the content, the base's included: equal fingerprints give equal masks.
    """

    spec: ModelSpec
    network: Network
    fingerprint: str
