import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_simmat.engine.normalization import PercentileAccumulator

ARRAYS = st.sampled_from(["u1", "u2", ">u2", "i2", "f4", ">f4", "f8"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 60),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(values=ARRAYS, percent=st.floats(0, 100))
@settings(max_examples=100, deadline=None)
def test_percentiles_are_those_of_numpy(values, percent):
    pool = PercentileAccumulator(values.dtype.newbyteorder("="))
    pool.add(values[: len(values) // 2])
    pool.add(values[len(values) // 2 :])
    assert len(pool) == len(values)
    low, high = float(values.min()), float(values.max())
    assert pool.range() == (low, high)
    (ours,) = pool.percentiles((percent,))
    assert low <= ours <= high or np.isclose(ours, low) or np.isclose(ours, high)
    # numpy's own difference of two huge values overflows; compare a hundredth, exactly as good
    theirs = np.percentile(values.astype(float) / 100, percent) * 100
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9 * (abs(low) + abs(high) + 1e-300))


def test_percentiles_leave_out_non_finite_values():
    pool = PercentileAccumulator(np.dtype(np.float32))
    pool.add(np.array([np.nan, 3, np.inf, 1, -np.inf], dtype=np.float32))
    assert len(pool) == 2
    assert pool.percentiles((0, 50, 100)) == (1, 2, 3)


def test_percentiles_neither_change_the_array_nor_follow_it():
    values = np.array([3.0, 1.0, 2.0])
    pool = PercentileAccumulator(values.dtype)
    pool.add(values)
    pool.percentiles((50,))
    assert values.tolist() == [3, 1, 2]
    values[:] = 9
    assert pool.range() == (1, 3)
