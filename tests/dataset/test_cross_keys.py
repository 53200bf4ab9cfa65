import numpy as np
import pytest

from ctr.dataset.crosses import (
    CrossKeys,
    counted_crosses,
    cross_keys,
    feature_words,
    joint_sums,
    pair_salts,
    read_admitted,
)
from ctr.dataset.hashing import PRIME
from tests.reference import crosses as reference

PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.fixture
def columns():
    draw = np.random.default_rng(0)
    sizes = {"a": (1, 6), "b": (6, 9), "c": (9, 40)}
    found = {name: draw.integers(low, high, 300) for name, (low, high) in sizes.items()}
    found["a"][draw.random(300) < 0.1] = 0  # dropped
    return found


@pytest.fixture
def words():
    keys = np.random.default_rng(1).integers(0, 2**64, 39, dtype=np.uint64)
    return feature_words(keys, np.arange(1, 40))


@pytest.mark.parametrize("min_count", [1, 2, 5, 1000])
def test_counted_crosses_are_those_of_nested_loops(columns, words, min_count):
    found = counted_crosses(columns, PAIRS, words, min_count)
    assert list(found) == PAIRS
    for (a, b), salt in zip(PAIRS, pair_salts(PAIRS).tolist(), strict=True):
        rows = list(zip(columns[a].tolist(), columns[b].tolist(), strict=True))
        assert found[a, b].tolist() == reference.admitted(rows, words.tolist(), salt, min_count)


def test_joint_values_too_many_for_a_counter_each_are_counted_alike(columns):
    weights = [np.random.default_rng(2).random(300), np.ones(300)]
    *sorted_, sorted_sums = joint_sums(columns["a"], columns["c"], 40, 10**9, weights)
    *counted, counted_sums = joint_sums(columns["a"], columns["c"], 40, 6, weights)
    assert [array.tolist() for array in sorted_] == [array.tolist() for array in counted]
    assert [array.tolist() for array in sorted_sums] == [array.tolist() for array in counted_sums]
    assert counted_sums[1].tolist() == counted[1].tolist()
    assert joint_sums(columns["a"], columns["c"], 40, 10**9)[1].tolist() == counted[1].tolist()


def test_keys_tell_pairs_places_and_values_apart():
    draw = np.random.default_rng(3)
    words = draw.integers(0, PRIME, (500, 4))
    salts = pair_salts([("a", "b"), ("a", "c"), ("b", "a")])
    left, right = words[:, None, None, :2], words[None, :, None, 2:]
    keys = cross_keys(left, right, salts[None, None])  # (500, 500, 3)
    assert len(np.unique(keys)) == keys.size
    assert keys.min() >= 0
    assert keys.max() < 2**62


def test_the_words_of_a_feature_depend_on_its_key_alone_and_dropped_ones_have_none():
    keys = np.array([5, 2**63 + 7, 9], np.uint64)
    words = feature_words(keys, np.array([3, 1, 0]))
    assert words.shape == (4, 4)
    assert not words[[0, 2]].any()
    assert np.array_equal(words[3], feature_words(keys[:1], np.array([1]))[1])


def test_admitted_keys_survive_the_file_and_an_altered_one_is_refused(tmp_path):
    admitted = np.sort(np.random.default_rng(0).integers(0, 2**62, 1000))
    CrossKeys((), np.zeros((1, 4), np.int32), admitted).write(tmp_path / "crosses.parquet")
    assert np.array_equal(read_admitted(tmp_path / "crosses.parquet"), admitted)
    CrossKeys((), np.zeros((1, 4), np.int32), admitted[::-1]).write(tmp_path / "crosses.parquet")
    with pytest.raises(ValueError, match="ascending"):
        read_admitted(tmp_path / "crosses.parquet")
    (tmp_path / "crosses.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="cannot be read"):
        read_admitted(tmp_path / "crosses.parquet")
