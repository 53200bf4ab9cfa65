import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import cross_sketch
from ctr.dataset.cross_sketch import CrossSketch
from ctr.dataset.crosses import CrossKeys, counted_crosses, feature_words, read_sketch
from ctr.dataset.hashing import PRIME

PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]


def draw_columns(rows: int, seed: int):
    draw = np.random.default_rng(seed)
    sizes = {"a": (1, 30), "b": (30, 130), "c": (130, 140)}
    columns = {name: draw.integers(low, high, rows) for name, (low, high) in sizes.items()}
    columns["b"][draw.random(rows) < 0.1] = 0
    keys = draw.integers(0, 2**64, 139, dtype=np.uint64)
    return columns, feature_words(keys, np.arange(1, 140))


def is_frequent(bits, keys):
    both = np.unpackbits(bits, axis=1, bitorder="little").astype(bool)
    width = both.shape[1]
    return both[0][(keys >> 31) % width] & both[1][(keys & PRIME) % width]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 3000),
    min_count=st.integers(1, 40),
    size=st.integers(1, 20_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_frequent_cross_is_ever_missed(rows, min_count, size, seed):
    columns, words = draw_columns(rows, seed)
    bits = CrossSketch(columns, PAIRS, words, min_count, size).bits()
    assert bits.size * 8 <= max(16, size)
    for keys in counted_crosses(columns, PAIRS, words, min_count).values():
        assert is_frequent(bits, keys).all()


@pytest.mark.parametrize("chunk", [1 << 18, 700])
def test_with_room_it_says_what_exact_counts_say(monkeypatch, chunk):
    monkeypatch.setattr(cross_sketch, "CHUNK", chunk)  # counts of chunks add up
    columns, words = draw_columns(20_000, 0)
    sketch = CrossSketch(columns, PAIRS, words, 5, 1 << 22)
    exact = counted_crosses(columns, PAIRS, words, 5)
    assert sketch.frequent == {pair: len(keys) for pair, keys in exact.items()}
    everything = np.concatenate(list(counted_crosses(columns, PAIRS, words, 1).values()))
    known = np.concatenate(list(exact.values()))
    assert set(everything[is_frequent(sketch.bits(), everything)]) == set(known)


def test_frequent_crosses_are_estimated_alike_for_every_pair_where_the_sketch_is_full():
    draw = np.random.default_rng(3)
    names = [f"f{number}" for number in range(8)]
    columns = {
        name: np.minimum(draw.zipf(1.3, 60_000), 400) + 400 * number for number, name in enumerate(names)
    }
    words = feature_words(draw.integers(0, 2**64, 3200, dtype=np.uint64), np.arange(1, 3201))
    pairs = [(a, b) for number, a in enumerate(names) for b in names[number + 1 :]]
    exact = {pair: len(keys) for pair, keys in counted_crosses(columns, pairs, words, 2).items()}
    found = CrossSketch(columns, pairs, words, 2, 20_000).frequent  # a byte for twenty crosses or so
    backwards = CrossSketch(columns, pairs[::-1], words, 2, 20_000).frequent
    assert found == backwards
    ratios = np.array([found[pair] / exact[pair] for pair in pairs])
    assert abs(ratios.mean() - 1) < 0.1
    assert np.abs(ratios - 1).max() < 0.5


def test_rare_crosses_taken_for_frequent_ones_are_few_where_each_row_has_twice_as_many_counters():
    columns, words = draw_columns(20_000, 1)
    all_of_them = np.concatenate(list(counted_crosses(columns, PAIRS, words, 1).values()))
    known = np.concatenate(list(counted_crosses(columns, PAIRS, words, 8).values()))
    bits = CrossSketch(columns, PAIRS, words, 8, 4 * len(all_of_them)).bits()
    rare = np.setdiff1d(all_of_them, known)
    assert len(rare) > 0
    assert is_frequent(bits, rare).mean() < 0.15


def test_the_bits_survive_the_file_and_an_altered_one_is_refused(tmp_path):
    columns, words = draw_columns(2000, 0)
    bits = CrossSketch(columns, PAIRS, words, 2, 5000).bits()
    path = tmp_path / "crosses.parquet"
    CrossKeys((), words, np.zeros(0, np.int64), bits).write(path)
    assert np.array_equal(read_sketch(path), bits)
    CrossKeys((), words, np.arange(5)).write(path)  # keys, not bits
    with pytest.raises(ValueError, match="cannot be read"):
        read_sketch(path)
    path.write_bytes(b"none")
    with pytest.raises(ValueError, match="cannot be read"):
        read_sketch(path)
