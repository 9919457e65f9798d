"""Which machine a golden file was recorded on: where floating-point results are bit-equal.

Sums and products of floats are rounded in an order that depends on the processor's vector units,
its vendor and its caches (MKL, oneDNN and OpenBLAS choose their kernels and block sizes by them),
and on the versions of the libraries. Golden bytes are compared where all of that is as it was at
the recording; elsewhere numbers within a tolerance are.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("numpy", "scipy", "scikit-image", "torch", "tifffile", "imagecodecs", "pillow")
_CPU = ("vendor_id", "cpu family", "model", "stepping")


def machine() -> dict[str, Any]:
    """Processor and libraries of this process, as they are kept in a golden file."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "numpy_simd": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    """Vendor, family, model and stepping where Linux tells them; the platform's word elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in reversed(list(pairs))}
    return " ".join(values.get(name, "?") for name in _CPU)
