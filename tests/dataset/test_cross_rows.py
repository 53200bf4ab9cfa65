import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.cross_rows import CrossRows
from ctr.dataset.crosses import CrossKeys, cross_keys, pair_salts
from ctr.network.crosses import Crosses, PairLayout
from ctr.selection.pair_space import cross_index

FEATURES = 12
NAMES = ("a", "b", "c", "d")


@st.composite
def crosses(draw):
    """Keys of crosses, the slots of their pairs, ids, and whether rows are shared: anything that a network may have."""
    slots = draw(st.lists(st.sampled_from([(0, 1), (0, 3), (1, 2), (2, 3)]), min_size=1, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    words = random.integers(0, 2**31 - 1, (FEATURES + 1, 4)).astype(np.int32)
    words[0] = 0
    ids = random.integers(0, FEATURES + 1, (draw(st.integers(0, 30)), len(NAMES)))
    pairs = tuple((NAMES[first], NAMES[second]) for first, second in slots)
    found = [
        cross_keys(words[ids[:, i], :2].astype(np.int64), words[ids[:, j], 2:].astype(np.int64), salt)
        for (i, j), salt in zip(slots, pair_salts(pairs), strict=True)
    ]
    known = np.unique(np.concatenate(found))
    admitted = known[random.random(len(known)) < draw(st.sampled_from([0.0, 0.5, 1.0]))]
    sketch = random.integers(0, 256, (2, draw(st.integers(1, 40)))).astype(np.uint8)
    sketched = draw(st.booleans())
    hashed = sketched or draw(st.booleans())
    own = draw(st.integers(1, 9)) if hashed else len(admitted)
    keys = CrossKeys(
        pairs, words, np.zeros(0, np.int64) if sketched else admitted, sketch if sketched else None
    )
    return keys, tuple(slots), ids, 1 + len(slots) + own, hashed


@settings(max_examples=200, deadline=None)
@given(crosses())
def test_numpy_finds_the_rows_of_crosses_that_torch_finds(drawn):
    keys, slots, ids, rows, hashed = drawn
    network = Crosses(PairLayout(2, memorized=slots, cross_rows=rows, hashed=hashed), None, cross_index(keys))
    expected = network.cross_rows(torch.from_numpy(ids)).numpy()
    found = CrossRows(keys, slots, rows, hashed)(ids)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (len(ids), len(slots))


def test_pairs_rows_and_keys_must_fit():
    keys = CrossKeys((("a", "b"),), np.ones((3, 4), np.int32), np.array([5, 9]))
    assert CrossRows(keys, [(0, 1)], 4, False)(np.array([[0, 1]])).tolist() == [[0]]
    for slots, rows, hashed in ([((0, 1),) * 2, 9, False], [((0, 1),), 3, False], [((0, 1),), 2, True]):
        with pytest.raises(ValueError, match=r"expected crosses of 2 pairs|too few"):
            CrossRows(keys, slots, rows, hashed)
