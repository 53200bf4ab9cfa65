"""Hashes that never move. The literals below were worked out with the `xxhash` package and Python's own integers.

They are also the check that all supported Polars versions agree, which no single environment can make: whatever is
installed where this file runs must give these very numbers, and so must a colleague's laptop in three years.
"""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from ctr.dataset import hashing
from ctr.dataset.encoding import signed
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.hashing import (
    PRIME,
    halves,
    hashes,
    multipliers,
    role_key,
    spread,
    value_keys,
    vocabulary_keys,
)
from ctr.dataset.schema import Schema
from ctr.errors import ConfigError
from ctr.settings import check

LARGEST = 2**64 - 1
EXTREMES = [0, 1, 3, 4, 2**31, 2**33 - 1, 2**33, 2**62, 2**63 - 1, 2**63, LARGEST - 3, LARGEST]
LOOKUPS = [*range(16), 1000]
VALUES = {
    ("user", "u1"): 0x0F0BA37E5C49236D,
    ("item", "u1"): 0xA34095F3A763B50E,
    ("user", "1"): 0x956ADF619A1D493D,
    ("user", "01"): 0x4B48954288A40852,
    ("user", "-1"): 0xE0B97467B9977148,
    ("user", " u1"): 0x08E11E5E8CF10C35,
    ("user", "ü"): 0x0DE9CCAE45060651,
    ("user", "u\u0308"): 0x5EB5748190F5113D,  # the same letter in two code points is another value
    ("user", "😀"): 0x6641C66E292DF06A,
    ("user", "x" * 300): 0x6D4EE3E70B546684,
    ("user", "a\x00b"): 0xC6305759FA9780F2,
    ("user", "line\nbreak"): 0x7D7029B681E89003,
    ("user id", "u1"): 0x4C79670DDA070DCC,
    ("Größe", "u1"): 0x5FB41CA046050CCA,
    ("城市", "上海"): 0x0D99A353061016A0,
    ("😀", "u1"): 0x5DD725B416CA4116,
}
ROLES = {
    "user": (0x655205BEA94F7DA7, 0xB609CF78FACB5620, 0xF558A4D705EF06CB),
    "item": (0x84D214BC3236C4CF, 0xB6CB1F5EC7132EFF, 0x3CADDDC63C555E0F),
    "Größe": (0x400CBA57E0D7E0EE, 0xCBA135AE76AC2AE5, 0xEB97D9B5715657DF),
    "城市": (0x90525F6D9D7751E0, 0x0119678893A5CC38, 0x1DA5B0C243C1A8D8),
    "😀": (0x79A610E070065AF8, 0xF51C3180DAB26351, 0x940400E8E59EDF88),
}
MULTIPLIERS = {
    0: (1056162977, 115767172, 1844190083),
    1: (1302114525, 2058193631, 823414782),
    2: (2090638452, 1780871755, 721598680),
    1000: (324840129, 1479342966, 801837158),
}
# Of lookups 0, 1, 2 and 1000, before they are taken modulo the rows of a table.
SPREAD = {
    0x0F0BA37E5C49236D: (2029463953, 470851967, 1328568402, 891507300),
    0x655205BEA94F7DA7: (95953837, 1385518310, 697849784, 332761852),
    0x0D99A353061016A0: (691055853, 1518677576, 1272097676, 1117440930),
    0x0000000000000000: (1844190083, 823414782, 721598680, 801837158),
    0x0000000000000004: (1959957255, 734124766, 354986788, 133696477),
    0x0000000200000000: (752869413, 2125529307, 664753485, 1126677287),
    0x8000000000000000: (1298529748, 400730221, 1766917906, 2037999046),
    0xFFFFFFFFFFFFFFFF: (1844190083, 823414782, 721598680, 801837158),
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # what UTF-8 can say
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
whole_keys = st.integers(0, LARGEST)


def word(text: str) -> int:
    return xxhash.xxh64(text.encode()).intdigest()


def slow_multipliers(lookup: int) -> tuple[int, ...]:
    return tuple((word(f"lookup {lookup} {letter}") >> 2) % (2**31 - 2) + 1 for letter in "abc")


def slow_spread(key: int, lookup: int) -> int:
    a, b, c = slow_multipliers(lookup)
    upper = key >> 2
    return (a * (upper >> 31) + b * (upper % 2**31) + c) % (2**31 - 1)


def keys_of(field: str, values: list[str | None]) -> list[int]:
    return value_keys(field, pl.Series("any", values, dtype=pl.String)).tolist()


def as_keys(numbers) -> np.ndarray:
    return np.array(numbers, np.uint64)


# The numbers themselves


def test_keys_of_values_are_these_for_ever():
    for (field, text), key in VALUES.items():
        assert keys_of(field, [text]) == [key], (field, text)


def test_keys_of_what_is_no_value_are_these_for_ever():
    for field, (missing, unknown, number) in ROLES.items():
        assert keys_of(field, [None]) == [missing]
        found = [role_key(field, role) for role in ("missing", "unknown", "number")]
        assert found == [missing, unknown, number], field


def test_multipliers_are_these_for_ever():
    assert {lookup: multipliers(lookup) for lookup in MULTIPLIERS} == MULTIPLIERS


def test_row_numbers_are_these_for_ever():
    keys = as_keys(list(SPREAD))
    for column, lookup in enumerate(MULTIPLIERS):
        found = spread(*halves(keys), lookup)
        assert found.tolist() == [numbers[column] for numbers in SPREAD.values()]
    # A user "u1" reads these rows of a table of a thousand.
    assert [numbers % 1000 for numbers in SPREAD[VALUES["user", "u1"]]] == [953, 967, 402, 300]


@given(names, st.lists(st.one_of(st.none(), texts.filter(bool)), max_size=8))
@example("user", [])
@example("", ["a", None])
@example("Größe", ["", "\x00", "\x01", "\x02", "é", None])
def test_keys_are_xxhash64_of_name_mark_and_text(field, values):
    assert keys_of(field, values) == [word(f"{field}\x00{value or ''}") for value in values]
    marks = {"missing": "\x00", "unknown": "\x01", "number": "\x02"}
    assert {role: role_key(field, role) for role in marks} == {
        role: word(field + mark) for role, mark in marks.items()
    }


@given(st.lists(texts, max_size=8))
@example(["", "a" * 1000])
def test_hashes_are_xxhash64_of_utf8(values):
    assert hashes(pl.Series("any", values, dtype=pl.String)).tolist() == [word(value) for value in values]


def test_columns_without_text_have_keys_as_well():
    assert value_keys("user", pl.Series("any", [None, None])).tolist() == [ROLES["user"][0]] * 2
    assert value_keys("user", pl.Series("any", [1, -1])).tolist() == [
        VALUES["user", "1"],
        VALUES["user", "-1"],
    ]


# Arithmetic


def test_multipliers_are_words_of_xxhash64_that_are_never_zero():
    for lookup in LOOKUPS:
        assert multipliers(lookup) == slow_multipliers(lookup)
        assert all(0 < number < PRIME for number in multipliers(lookup))


@given(st.lists(whole_keys, min_size=1, max_size=20), st.sampled_from(LOOKUPS))
@example(EXTREMES, 0)
@example(EXTREMES, 1000)
def test_rows_are_what_exact_integers_give(numbers, lookup):
    assert spread(*halves(as_keys(numbers)), lookup).tolist() == [slow_spread(key, lookup) for key in numbers]


@given(st.lists(whole_keys, min_size=1, max_size=20), st.sampled_from(LOOKUPS))
@example(EXTREMES, 0)
def test_torch_gives_the_same_rows(numbers, lookup):
    keys = as_keys(numbers)
    high, low = (torch.from_numpy(half) for half in halves(keys))
    a, b, c = multipliers(lookup)
    assert ((a * high + b * low + c) % PRIME).tolist() == spread(*halves(keys), lookup).tolist()
    # A dataset holds keys as signed numbers: the shift of those brings ones in, which are cut off.
    upper = (torch.from_numpy(keys.view(np.int64)) >> 2) & (2**62 - 1)
    assert (upper >> 31).tolist() == high.tolist()
    assert (upper & PRIME).tolist() == low.tolist()


@pytest.mark.parametrize("largest", [(PRIME - 1,) * 3, (PRIME - 1, 1, PRIME - 1), (1, 1, 1)])
def test_the_largest_multipliers_and_keys_do_not_overflow(monkeypatch, largest):
    monkeypatch.setattr(hashing, "multipliers", lambda lookup: largest)
    a, b, c = largest
    high, low = halves(as_keys(EXTREMES))
    assert high.dtype == low.dtype == np.int64
    assert (int(high.max()), int(low.max())) == (PRIME, PRIME)
    exact = [a * (key >> 33) + b * ((key >> 2) % 2**31) + c for key in EXTREMES]
    assert max(exact) < 2**63
    assert spread(high, low, 0).tolist() == [number % PRIME for number in exact]
    tensors = a * torch.from_numpy(high) + b * torch.from_numpy(low) + c
    assert tensors.tolist() == exact


def test_rows_have_the_shape_of_keys():
    keys = as_keys(EXTREMES).reshape(3, 2, 2)
    assert spread(*halves(keys), 1).shape == (3, 2, 2)
    assert spread(*halves(keys[:0]), 1).shape == (0, 2, 2)


# Independence


def squared_pairs(numbers: np.ndarray) -> int:
    """Pairs of equal numbers."""
    counts = np.unique(numbers, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return value_keys("user", pl.Series("any", [f"u{n}" for n in range(40_000)]))


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2), (0, 1000), (7, 8)])
def test_two_lookups_collide_independently(many, pair):
    rows = 100
    one, two = (spread(*halves(many), lookup) % rows for lookup in pair)
    pairs = len(many) * (len(many) - 1) / 2
    # 80,000 of 800 million pairs, 283 more or less; were lookups the same, it would be 8 million.
    both = squared_pairs(one * rows + two)
    assert abs(both - pairs / rows**2) < 4.5 * (pairs / rows**2) ** 0.5
    for alone in (one, two):
        assert squared_pairs(alone) == pytest.approx(pairs / rows, rel=0.01)


def test_no_lookup_follows_from_another():
    # (h_j, h_k) takes every pair of numbers once where the determinant is not 0.
    for one, two in combinations(LOOKUPS, 2):
        (a, b, _), (d, e, _) = multipliers(one), multipliers(two)
        assert (a * e - b * d) % PRIME != 0, (one, two)


@pytest.mark.parametrize("rows", [10, 997, 1000, 1024, 65_536])
@pytest.mark.parametrize("lookup", [0, 1, 1000])
def test_rows_are_uniform(many, rows, lookup):
    counts = np.bincount(spread(*halves(many), lookup) % rows, minlength=rows)
    assert len(counts) == rows
    expected = len(many) / rows
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - (rows - 1)) < 4.5 * (2 * (rows - 1)) ** 0.5


# Fields


def test_fields_with_the_same_texts_have_unrelated_keys(many):
    other = value_keys("item", pl.Series("any", [f"u{n}" for n in range(40_000)]))
    assert not np.isin(many, other).any()
    same = (spread(*halves(many), 0) % 100) == (spread(*halves(other), 0) % 100)
    assert same.mean() == pytest.approx(0.01, abs=0.0025)  # five standard errors
    differing_bits = np.unpackbits((many ^ other).view(np.uint8)).sum() / len(many)
    assert differing_bits == pytest.approx(32, abs=0.1)


def vocabulary(*fields: str) -> pl.DataFrame:
    frames = [
        pl.DataFrame(
            {
                "field": [field] * 5,
                "role": ["unknown", "missing", "value", "value", "value"],
                "value": [None, None, "a", "b", f"of {field}"],
            }
        )
        for field in fields
    ]
    return pl.concat(frames)


def test_adding_removing_and_reordering_fields_moves_no_key():
    def keys(*fields: str) -> dict[tuple[str, str, str | None], int]:
        frame = vocabulary(*fields)
        return dict(zip(frame.rows(), vocabulary_keys(frame).tolist(), strict=True))

    before = keys("user", "item", "hour")
    assert keys("hour", "user", "item") == before
    assert keys("user", "hour").items() < before.items()
    assert keys("new", "user", "item", "other", "hour").items() > before.items()
    renamed = keys("user", "article", "hour")
    assert not {key for (field, *_), key in renamed.items() if field == "article"} & set(before.values())


def test_a_vocabulary_in_any_order_has_the_keys_of_its_roles_and_texts():
    frame = vocabulary("user", "item").sample(fraction=1.0, shuffle=True, seed=1)
    found = vocabulary_keys(frame)
    assert found.dtype == np.uint64
    for (field, role, value), key in zip(frame.rows(), found.tolist(), strict=True):
        assert key == (keys_of(field, [value])[0] if role == "value" else role_key(field, role))
    assert len(set(found.tolist())) == 10


def test_the_value_of_a_scaled_field_is_its_number():
    frame = pl.DataFrame(
        {"field": ["x"] * 3, "role": ["unknown", "missing", "value"], "value": [None] * 3},
        schema_overrides={"value": pl.String},
    )
    expected = [role_key("x", role) for role in ("unknown", "missing", "number")]
    assert vocabulary_keys(frame).tolist() == expected
    assert vocabulary_keys(frame.clear()).tolist() == []


@given(names, names, texts.filter(bool), texts.filter(bool))
@example("a", "a\x01", "b", "\x00")
@example("a", "a\x02", "\x01", "b")
@example("", "\x01", "\x01", "\x00")
def test_what_is_hashed_of_two_fields_is_never_the_same_text(one, two, text, other):
    """Names without the byte 00 cannot be told for another's, whatever else they hold: keys differ but by accident."""
    if one == two:
        return
    mine = [f"{one}\x00{text}", f"{one}\x00", f"{one}\x01", f"{one}\x02"]
    theirs = [f"{two}\x00{other}", f"{two}\x00", f"{two}\x01", f"{two}\x02"]
    assert len({*mine, *theirs}) == 8
    assert len({*keys_of(one, [text, None]), *keys_of(two, [other, None])}) == 4


def test_a_name_with_the_byte_00_is_refused_for_it_could_be_another_fields_value():
    assert keys_of("a", ["b\x00c"]) == keys_of("a\x00b", ["c"])
    with pytest.raises(ConfigError, match=r"fields\[1\]\.name: .*U\+0000"):
        check({"name": "log", "label": "click", "fields": [{"name": "a\x00b"}]}, Schema, "schema")
    assert FieldSpec(name="a\x01b\x02 ü\n").name == "a\x01b\x02 ü\n"


@given(whole_keys)
@example(0)
@example(2**63 - 1)
@example(2**63)
@example(LARGEST)
def test_a_key_and_its_signed_number_are_the_same_bits(key):
    assert signed(key) == as_keys([key]).view(np.int64)[0]
