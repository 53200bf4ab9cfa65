"""What docs/encoding.md says of the way from ids to what the network reads, in the page's own words, is what we do."""

from itertools import product

import numpy as np
import polars as pl
import pytest

from ctr.dataset.cross_rows import CrossRows
from ctr.dataset.crosses import CrossKeys, cross_keys, feature_words, pair_salts
from ctr.dataset.hashing import vocabulary_keys
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.personal_key import load_key
from ctr.dataset.placed import PlacedFeatures, PlacedKeys
from ctr.dataset.placement import place
from ctr.dataset.schema import Schema
from ctr.serving.encoding_file import describe_encoding
from ctr.settings import check
from tests.reference.bundle_encoding import xxhash64

P = 2**31 - 1
COMPOSITIONS = ["lookup", "robe", "multi_hash", "quotient_remainder"]
VALUES = {"user": 40, "item": 25, "day": 3}


def h(k, key):
    a, b, c = ((xxhash64(f"lookup {k} {letter}".encode()) >> 2) % (P - 1) + 1 for letter in "abc")
    return (a * (key >> 33) + b * ((key >> 2) % 2**31) + c) % P


def described_places(placement, owner, key, own):
    [at] = [each for each in placement["stretches"] if each["field"] == owner]
    start, rows, second, lookups = at["start"], at["rows"], at["second_start"], at["lookups"]
    width, most = (
        placement["width"],
        max([placement["lookups"], *(one["lookups"] for one in placement["stretches"])]),
    )
    last = second + own if at["exact"] else second + h(1000, key) % max(1, at["second_rows"])
    if placement["composition"] == "quotient_remainder":
        return [start + own if at["exact"] else start + h(0, key) % rows, last]
    found = []
    for k in range(most):
        if k >= lookups:
            found.append(0)
        elif placement["composition"] == "lookup":
            found.append(start + own * lookups + k if at["exact"] else start + h(k, key) % rows)
        elif placement["composition"] == "robe":
            block = start * width + h(k, key) % (rows * width - width + 1)
            found.append((start + own * lookups + k) * width if at["exact"] else block)
        else:
            found.append((start + own) * (k == 0) if at["exact"] else start + h(k, key) % rows)
    return [*found, last] if placement["composition"] == "multi_hash" else found


def features():
    """A vocabulary of three fields, with missing and unknown, and a field of numbers."""
    rows = []
    for field, count in VALUES.items():
        cells = [("unknown", None), ("missing", None), *(("value", f"{field}{n}") for n in range(count))]
        rows += [(field, role, value, len(rows) + 1 + n) for n, (role, value) in enumerate(cells)]
    rows.append(("price", "value", None, len(rows) + 1))
    return pl.DataFrame(rows, schema=["field", "role", "value", "id"], orient="row")


def described_key(field, role, value):
    mark = {"missing": "\0", "unknown": "\1", "value": "\2"}[role]
    return xxhash64(f"{field}\0{value}".encode() if value is not None else f"{field}{mark}".encode())


def placed(composition, shared, vocabulary):
    counts = dict(vocabulary.group_by("field", maintain_order=True).len().iter_rows())
    odd = {} if composition == "quotient_remainder" else {"item": 3}
    sizes = {"dim": 12, "linear": 1, "rows": 60, "collision_free": 6, "field_lookups": odd}
    return place(counts, shared=shared, composition=composition, **sizes)


@pytest.mark.parametrize(("composition", "shared"), list(product(COMPOSITIONS, [True, False])))
def test_where_features_are_read_is_as_described(composition, shared):
    vocabulary = features()
    placement = placed(composition, shared, vocabulary)
    assert any(own.exact for own in placement.stretches)
    found = PlacedFeatures.of_vocabulary(placement, vocabulary).places
    assert not found[0].any()
    own = dict.fromkeys(vocabulary["field"], 0)
    for field, role, value, id_ in vocabulary.iter_rows():
        key = described_key(field, role, value)
        assert described_places(placement.entry(), field, key, own[field]) == found[id_].tolist()
        own[field] += 1


def test_which_hashed_values_are_kept_is_as_described():
    vocabulary = features().filter(pl.col("field") != "price")
    keys, counts = vocabulary_keys(vocabulary), {"user": 42, "item": 27, "day": 5}
    kept = KeptValues.of(keys[::3], ["item"], unknown=["user"])
    placement = place(counts, shared=True, dim=8, linear=1, rows=30)
    owners = list(counts)
    slots = np.array([owners.index(field) for field in vocabulary["field"]])
    numbers, places = PlacedKeys(placement, owners, kept).placed(keys, slots)
    prints = set(kept.fingerprints.tolist())
    seen = set()
    for row, (field, role, value, _) in enumerate(vocabulary.iter_rows()):
        key = described_key(field, role, value)
        is_kept = field == "item" or key >> (64 - kept.bits) in prints
        if not is_kept and role != "missing" and field == "user":
            key, is_kept = described_key(field, "unknown", None), True
        assert numbers[row] == is_kept
        assert places[row].tolist() == (
            described_places(placement.entry(), field, key, 0) if is_kept else [0, 0]
        )
        seen.add((field, bool(is_kept)))
    assert {("day", True), ("day", False), ("item", True), ("user", True)} <= seen


@pytest.mark.parametrize("way", ["keys", "hashed", "sketch"])
def test_the_rows_of_crosses_are_as_described(way):
    vocabulary = features()
    words, pairs = (
        feature_words(vocabulary_keys(vocabulary), vocabulary["id"].to_numpy().astype(np.int64)),
        (
            ("user", "item"),
            ("item", "day"),
        ),
    )
    keys = {id_: described_key(field, role, value) for field, role, value, id_ in vocabulary.iter_rows()}
    slots = [(0, 1), (1, 2)]
    ids = np.array([[1 + n % 42, 43 + n % 27, 70 + n % 5] for n in range(300)], np.int64)
    ids[::7, 0] = ids[::11, 2] = 0
    every = [
        cross_keys(words[ids[:, a], :2].astype(np.int64), words[ids[:, b], 2:].astype(np.int64), salt)
        for (a, b), salt in zip(slots, pair_salts(pairs), strict=True)
    ]
    admitted = np.unique(np.concatenate(every))[::2]
    sketch = None
    if way == "sketch":
        bits = np.zeros((2, 8 * 256), np.uint8)
        bits[0, (admitted >> 31) % 2048] = bits[1, (admitted % 2**31) % 2048] = 1
        sketch = np.packbits(bits, axis=1, bitorder="little")
    rows = len(admitted) + 3 if way == "keys" else 20
    stored = admitted if sketch is None else np.zeros(0, np.int64)
    found = CrossRows(CrossKeys(pairs, words, stored, sketch), slots, rows, way != "keys")(ids)
    position = {int(key): at for at, key in enumerate(admitted)}
    kinds = set()
    for row, c in product(range(len(ids)), range(2)):
        first, second = (int(ids[row, slot]) for slot in slots[c])
        if first == 0 or second == 0:
            assert found[row, c] == 0
            continue
        salt = xxhash64("\3".join(pairs[c]).encode())
        one, two = (
            (h(2000 + k, keys[first]) + h(2002 + k, keys[second]) + s) % P
            for k, s in enumerate([(salt >> 33) % P, (salt >> 2) % 2**31 % P])
        )
        there = one * 2**31 + two in position
        if sketch is not None:
            there = all(sketch[k][w % 2048 // 8] >> (w % 2048 % 8) & 1 for k, w in enumerate([one, two]))
        place_ = position.get(one * 2**31 + two) if way == "keys" else one * (two + 1) % P % (rows - 3)
        assert found[row, c] == (3 + place_ if there else c + 1)
        kinds.add(there)
    assert kinds == {True, False}


def test_the_key_of_pseudonyms_is_the_bytes_of_the_secret_without_blanks_around_it(monkeypatch, tmp_path):
    import hashlib
    import hmac

    (tmp_path / "key").write_bytes(b"\n\t 00ff00ff00ff00ff\xe9 \r\n\v\f")
    monkeypatch.delenv("CTR_PII_KEY", raising=False)
    monkeypatch.setenv("CTR_PII_KEY_FILE", str(tmp_path / "key"))
    secret, key = b"00ff00ff00ff00ff\xe9", load_key(["user"])
    expected = hmac.new(secret, b"ctr value\0" + "é".encode(), hashlib.sha256).hexdigest()[:32]
    assert key.pseudonym("é") == expected
    assert key.id == hmac.new(secret, b"ctr key id", hashlib.sha256).hexdigest()[:16]


def test_joins_types_and_expressions_are_described():
    keys = {
        "name": "x", "label": "click", "derive": {"cheap": "price < 4", "both": "cheap OR n > 1"},
        "split": {"by": "time", "column": "at", "valid": 0.1, "test": 0.1, "timezone": "Europe/Paris"},
        "fields": [{"name": "both"}, {"name": "city"}],
        "joins": [
            {"input": "prices.csv", "on": "item", "time": "since", "max_age": "2d", "at_scoring": "path"},
            {"input": "side_tables/00000.parquet", "on": "shop", "format": "parquet"},
        ],
    }  # fmt: skip
    entries = [
        {"name": name, "columns": ["item", "n"], "scale": None, "edges": None} for name in ("both", "city")
    ]
    found = describe_encoding(check(keys, Schema, "s"), entries, "vocabulary", ["item"], {"n": "Int64"})
    paris = {"timezone": "Europe/Paris"}
    assert found["joins"] == [
        {"table": None, "input": "prices.csv", "on": "item", "time": "since", "log_time": "at",
         "max_age_seconds": 172_800.0, **paris},
        {"table": "side_tables/00000.parquet", "input": None, "on": "shop", "time": None, "log_time": None,
         "max_age_seconds": None, **paris},
    ]  # fmt: skip
    assert found["types"] == {"n": "Int64"}
    assert found["personal"] == ["item"]
    assert [each["name"] for each in found["expressions"]] == ["cheap", "both"]
