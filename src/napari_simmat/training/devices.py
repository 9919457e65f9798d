"""`Devices`: where and in which precision a network is trained; several at once by Fabric."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from napari_simmat._text import import_problem
from napari_simmat.engine.device import choose_device, half_precision_is_faster
from napari_simmat.training.config import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

SLOW_HALF_PRECISION = (
    "This CPU is no faster in bf16-mixed and may be ten times slower; use auto or 32-true."
)
MAX_WORKERS = 64
NO_16_MIXED = "A CPU cannot train in 16-mixed; use bf16-mixed or 32-true."
NO_FABRIC = "Training needs Lightning Fabric; run `pip install lightning-fabric`."


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Devices of a training run.

    Parameters
    ----------
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    count, nodes
        Processes per node, each with a GPU if there are any, and number of nodes.
    workers
        Threads of each process that read the images of the next steps; by default 4 beside a GPU,
        and none on a CPU, whose cores compute. The result is the same to the bit.
    """

    device: str = "auto"
    count: int = 1
    nodes: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and not 0 <= self.workers <= MAX_WORKERS:
            raise ValueError(
                f"{self.workers} threads cannot read images; choose 0 to {MAX_WORKERS}."
            )
        if min(self.count, self.nodes) < 1:
            raise ValueError(
                f"A training needs at least one device on one node, not {self.count} on "
                f"{self.nodes}."
            )

    @property
    def processes(self) -> int:
        """Number of processes on all nodes."""
        return self.count * self.nodes

    @property
    def readers(self) -> int:
        """Number of threads that read images."""
        if self.workers is not None:
            return self.workers
        return 0 if choose_device(self.device).type == "cpu" else 4

    def precision(self, given: Precision) -> Precision:
        """Resolve auto: half precision if that is safe and faster on this device.

        Several CPU processes compute exactly, as each would measure the speed for itself.
        """
        if given != "auto":
            return given
        found = choose_device(self.device)
        if found.type == "cuda":
            half = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            half = found.type == "cpu" and self.processes == 1 and half_precision_is_faster()
        return "bf16-mixed" if half else "32-true"

    def fabric(self, precision: str, *, partly: bool = False) -> Fabric:
        """Lightning Fabric for these devices, not launched yet.

        Parameters
        ----------
        precision
            Fabric's name of it, not auto.
        partly
            Whether a step may leave out some of the trained parameters.

        Raises
        ------
        ValueError
            If there are no such devices, or they cannot compute in that precision.
        ImportError
            If Fabric is not installed; the message says how to install it.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ImportError as error:
            raise ImportError(import_problem(error, "lightning_fabric", NO_FABRIC)) from error
        # Silences announcements of the chosen devices; warnings remain.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        found = choose_device(self.device)
        devices: Any = self.count
        available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(found.type, self.count)
        if found.index is not None:
            devices = [found.index]
            available = 1
        if self.count > available:
            raise ValueError(
                f"{self.count} devices are requested, but {self.device} is {available}; request "
                f"{available}, or compute on cpu."
            )
        if precision == "16-mixed" and found.type == "cpu":
            raise ValueError(NO_16_MIXED)
        half_on_a_processor = (precision, found.type, self.processes) == ("bf16-mixed", "cpu", 1)
        if half_on_a_processor and not half_precision_is_faster():
            logger.warning(SLOW_HALF_PRECISION)
        several = self.processes > 1
        strategy = DDPStrategy(find_unused_parameters=partly) if several else "auto"
        try:
            return Fabric(
                accelerator=found.type,
                devices=devices,
                num_nodes=self.nodes,
                strategy=strategy,
                precision=precision,  # type: ignore[arg-type]
            )
        except RuntimeError as error:
            if (tasks := os.environ.get("SLURM_NTASKS")) and "ntasks" in str(error):
                raise ValueError(
                    f"SLURM was started with --ntasks={tasks}; use --ntasks-per-node instead, one "
                    "for each device."
                ) from error
            raise


def is_first_process() -> bool:
    """Whether this is the one process of a run that logs and writes.

    Known from the environment of Fabric, torchrun and SLURM before Fabric launches the others.
    """
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)
