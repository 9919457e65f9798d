"""Where a training runs: Lightning Fabric on a processor, on one GPU or on several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_simmat.engine.devices import choose_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a training runs.

    Parameters
    ----------
    device
        auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.
    count, nodes
        Processes on each node, with a GPU each where there are any, and nodes.
    """

    device: str = "auto"
    count: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.nodes < 1:
            raise ValueError(
                f"A training needs at least one device on one node, not {self.count} on "
                f"{self.nodes}."
            )

    def fabric(self, precision: str) -> Fabric:
        """Lightning Fabric for these devices, not launched yet.

        Raises
        ------
        ImportError
            If it is not installed; the sentence says how to get it.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError:
            raise ImportError(
                "Training needs Lightning Fabric; run `pip install 'napari-simmat[train]'`."
            ) from None
        found = choose_device(self.device)
        devices: Any = self.count
        if found.index is not None:
            if self.count > 1:
                raise ValueError(
                    f"{self.device} is one device, {self.count} are asked for; say cuda alone."
                )
            devices = [found.index]
        # Without auxiliary losses the head of the predicted quality gets no gradient.
        several = self.count * self.nodes > 1
        strategy = DDPStrategy(find_unused_parameters=True) if several else "auto"
        return Fabric(
            accelerator=found.type,
            devices=devices,
            num_nodes=self.nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
        )
