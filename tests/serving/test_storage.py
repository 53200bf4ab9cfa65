import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ctr.errors import CtrError
from ctr.serving.storage import restored, stored, table_bytes

NUMBERS = st.floats(-1e4, 1e4, width=32)
MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9), elements=NUMBERS)


@settings(max_examples=200, deadline=None)
@given(MATRICES)
def test_int8_is_off_by_half_a_step_of_its_row_at_most(matrix):
    tensors = stored({"w": matrix}, "int8")
    found = restored(tensors)["w"]
    assert found.dtype == np.float32
    assert found.shape == matrix.shape
    if matrix.shape[-1] > 4:
        step = np.abs(matrix).max(-1, keepdims=True) / 127
        assert (np.abs(found - matrix) <= step * 0.501 + 1e-37).all()
        assert tensors["w"].nbytes + tensors["w.scale"].nbytes < matrix.nbytes / 2 + 4 * matrix[..., 0].size
    else:
        np.testing.assert_array_equal(found, matrix.astype(np.float16))
    assert (found[(matrix == 0.0).all(-1)] == 0.0).all()  # row 0 of a table among them


@settings(max_examples=100, deadline=None)
@given(MATRICES)
def test_float16_is_off_by_its_last_bit_at_most_and_float32_not_at_all(matrix):
    found = restored(stored({"w": matrix}, "float16"))["w"]
    assert (np.abs(found - matrix) <= np.maximum(np.abs(matrix) * 2**-11, 2**-25)).all()
    assert restored(stored({"w": matrix}, "float32"))["w"] is matrix


def test_vectors_and_whole_numbers_stay_as_they_are():
    weights = {"bias": np.full(9, 1 / 3, np.float32), "steps": np.arange(8).reshape(1, 8)}
    for dtype in ("float16", "int8"):
        found = restored(stored(weights, dtype))
        assert all(found[name] is array for name, array in weights.items())


def test_bytes_of_tables_leave_out_what_dropped_features_read():
    weights = {
        "table.weight": np.ones((4, 8), np.float32),
        "backbone.mlp.0.weight": np.ones((4, 8), np.float32),
    }
    assert [table_bytes(stored(weights, dtype)) for dtype in ("float32", "float16", "int8")] == [
        3 * 8 * 4,
        3 * 8 * 2,
        3 * (8 + 4),
    ]


def test_a_weight_beyond_float16_is_named():
    with pytest.raises(
        CtrError, match=r'"w" holds 70000, more than float16 can; use export.dtype = "float32"'
    ):
        stored({"w": np.full((2, 2), 7e4, np.float32)}, "float16")
