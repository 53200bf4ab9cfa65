"""The encoding of a bundle from its files alone, slow and obvious: a model for other languages (docs/encoding.md).

Plain Python; PyArrow merely reads the parquet files. No Polars, no NumPy, nothing of our library.
"""

import json
import math
import re
import struct
from bisect import bisect_left
from pathlib import Path

import pyarrow.parquet as pq

WORD = 2**64
PRIMES = (
    11400714785074694791,
    14029467366897019727,
    1609587929392839161,
    9650029242287828579,
    2870177450012600261,
)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
NAN = re.compile(r"[+-]?nan", re.IGNORECASE)


def xxhash64(data: bytes) -> int:
    """Collet, "xxHash fast digest algorithm", seed 0."""
    one, two, three, four, five = PRIMES

    def left(value, bits):
        return ((value << bits) | (value >> (64 - bits))) % WORD

    def rounded(lane, word):
        return left((lane + word * two) % WORD, 31) * one % WORD

    rest = data
    if len(data) >= 32:
        lanes = [(one + two) % WORD, two, 0, -one % WORD]
        while len(rest) >= 32:
            words, rest = struct.unpack("<4Q", rest[:32]), rest[32:]
            lanes = [rounded(lane, word) for lane, word in zip(lanes, words, strict=True)]
        found = sum(left(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) % WORD
        for lane in lanes:
            found = ((found ^ rounded(0, lane)) * one + four) % WORD
    else:
        found = five
    found = (found + len(data)) % WORD
    while len(rest) >= 8:
        (word,), rest = struct.unpack("<Q", rest[:8]), rest[8:]
        found = (left(found ^ rounded(0, word), 27) * one + four) % WORD
    if len(rest) >= 4:
        (word,), rest = struct.unpack("<I", rest[:4]), rest[4:]
        found = (left(found ^ word * one % WORD, 23) * two + three) % WORD
    for byte in rest:
        found = left(found ^ byte * five % WORD, 11) * one % WORD
    for shift, prime in ((33, two), (29, three)):
        found = (found ^ found >> shift) * prime % WORD
    return found ^ found >> 32


def parsed(kind, raw):
    """The raw value that a golden pair holds."""
    if kind == "null" or raw is None:
        return None
    if kind.endswith("s"):
        return [parsed(kind[:-1], item) for item in json.loads(raw)]
    return {"text": str, "integer": int, "float": float, "boolean": lambda text: text == "true"}[kind](raw)


def text_of(value):
    """Canonical text; None is missing."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if abs(value) < 2.0**63 and value == math.floor(value):
            return str(int(value))
        return repr(value)
    return str(value)


class Encoding:
    """How the fields of one bundle are encoded."""

    def __init__(self, folder: Path) -> None:
        self.described = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))
        self.fields = {field["name"]: field for field in self.described["fields"]}
        self.blanks = "".join(map(chr, self.described["blanks"]))
        self.ids = None
        if self.described["ids"] == "vocabulary":
            rows = pq.read_table(folder / "vocabulary.parquet").to_pylist()
            self.ids = {(row["field"], row["role"], row["value"]): row["id"] for row in rows}

    def encode(self, name, value):
        """Ids, numbers as float32, and whether the cell breaks the schema."""
        field = self.fields[name]
        if field["always"] is not None:
            value = field["always"]
        if field["kind"] == "list":
            return (
                [self.of_text(field, text) for text in self.items(field, value)]
                or [self.of_role(field, "missing")],
                [],
                False,
            )
        if field["kind"] == "vector":
            return self.vector(field, value)
        if field["kind"] == "numeric":
            return self.number(field, value)
        text = text_of(value)
        if text is None or text in field["missing_values"]:
            return [self.of_role(field, "missing")], [], False
        return [self.of_text(field, text)], [], False

    def items(self, field, value):
        if not isinstance(value, list):
            text = text_of(value)
            value = [] if text is None else text.split(field["separator"])
        texts = [text_of(item) for item in value]
        kept = [text for text in texts if text is not None and text not in field["missing_values"]]
        return kept[: field["max_length"]]

    def number(self, field, value):
        number, broken = self.finite(value, field["missing_values"])
        if number is None:
            scaled = field["factor"] is not None
            return [self.of_role(field, "missing")], [1.0] * scaled, broken
        if field["factor"] is not None:
            return (
                [self.of_role(field, "number")],
                [float32((number - field["shift"]) * field["factor"])],
                False,
            )
        if field["edges"] is not None:
            whole = bisect_left(field["edges"], number)
        elif number > 2.0:
            whole = math.floor(math.log(number) ** 2)
        else:
            whole = int(max(number, -(2.0**63)))
        return [self.of_text(field, str(whole))], [], False

    def vector(self, field, value):
        if isinstance(value, str):
            value = value.split(field["separator"]) if value else []
        found = [self.finite(item, []) for item in value or []]
        good = len(found) == field["size"] and all(
            number is not None and not broken for number, broken in found
        )
        if not good:
            return [self.of_role(field, "missing")], [0.0] * field["size"], bool(found)
        factor = float32(field["factor"])
        numbers = [float32(float32(number) * factor) for number, _ in found]
        return [self.of_role(field, "number")], numbers, False

    def finite(self, value, missing):
        """A number or None, and whether it is broken."""
        if isinstance(value, str):
            text = value.strip(self.blanks)
            if text == "" or text in missing or NAN.fullmatch(text):
                return None, False
            if not NUMBER.fullmatch(text):
                return None, True
            value = text
        if value is None:
            return None, False
        number = float(value)
        if math.isnan(number) or text_of(number) in missing:
            return None, False
        return (None, True) if math.isinf(number) else (number, False)

    def of_text(self, field, text):
        if self.ids is None:
            return signed(xxhash64(f"{field['owner']}\0{text}".encode()))
        return self.ids.get((field["owner"], "value", text), self.of_role(field, "unknown"))

    def of_role(self, field, role):
        if self.ids is None:
            mark = {"missing": "\0", "unknown": "\1", "number": "\2"}[role]
            return signed(xxhash64(f"{field['owner']}{mark}".encode()))
        return self.ids.get((field["owner"], "value" if role == "number" else role, None), 0)


def signed(key):
    return key - WORD if key >= WORD // 2 else key


def float32(value):
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
