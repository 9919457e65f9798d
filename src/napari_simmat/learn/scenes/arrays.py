"""Names for the array types that scenes are made of."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
"""Float32 wherever a public function returns it; double precision may occur on the way."""
Ids: TypeAlias = NDArray[np.int32]
Shape: TypeAlias = tuple[int, int]
