"""How a line of CSV becomes values: RFC 4180, where a quote means something only at the start of a value."""

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Dialect:
    """How lines become values: separator and quote, one ASCII byte each; `quote` None switches quoting off."""

    separator: bytes
    quote: bytes | None

    @cached_property
    def value(self) -> re.Pattern[bytes]:
        """One value, quoted or not; never fails, and never runs over a separator or line end outside quotes."""
        sep = re.escape(self.separator)
        if self.quote is None:
            return re.compile(rb"[^%s\n]*+" % sep)
        quote = re.escape(self.quote)
        return re.compile(rb"%s(?>[^%s]|%s%s)*+%s|(?:[^%s%s\n][^%s\n]*+)?" % (*(quote,) * 5, sep, quote, sep))

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """One whole record with its line end; fails where quotes are broken."""
        sep, value = re.escape(self.separator), self.value.pattern
        return re.compile(rb"(?>%s)(?>%s(?>%s))*+\r?(?:\n|\Z)" % (value, sep, value))

    def values(self, record: bytes) -> list[bytes]:
        """The values of a well-formed record, quotes removed."""
        return [self._unquoted(value) for value in self.raw_values(record)]

    def raw_values(self, record: bytes) -> list[bytes]:
        """The values of a well-formed record as they stand in the file."""
        record = record.removesuffix(b"\n").removesuffix(b"\r")
        values, at = [], 0
        while True:
            match = self.value.match(record, at)
            assert match is not None, "the pattern matches the empty text"
            values.append(match.group())
            at = match.end() + 1
            if match.end() >= len(record):
                return values

    def _unquoted(self, value: bytes) -> bytes:
        if self.quote is None or not value.startswith(self.quote):
            return value
        return value[1:-1].replace(self.quote * 2, self.quote)

    def requoted(self, record: bytes) -> bytes:
        """The same record with values that hold a stray quote put in quotes."""
        if self.quote is None or self.quote not in record:
            return record
        quote = self.quote
        values = [
            value
            if value.startswith(quote) or quote not in value
            else quote + value.replace(quote, quote * 2) + quote
            for value in self.raw_values(record)
        ]
        return self.separator.join(values) + b"\n"
