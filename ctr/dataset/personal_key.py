"""The key that turns personal data into pseudonyms: read from the environment or a file, never stored.

A pseudonym is the first 32 hexadecimal characters of HMAC-SHA256(key, "ctr value", zero byte, canonical text in UTF-8).
The column does not enter, so one value has one pseudonym in every column: joins and `shares` work as on raw values.
The key's id is the first 16 hexadecimal characters of HMAC-SHA256(key, "ctr key id").
"""

import hmac
import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from ctr.errors import ConfigError

KEY, KEY_FILE = "CTR_PII_KEY", "CTR_PII_KEY_FILE"
_SHORTEST = 16  # bytes: as many as a pseudonym has


class Key:
    """The secret; `id` tells two keys apart and reveals neither."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hmac.digest(secret, b"ctr key id", "sha256").hex()[:16]

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def pseudonym(self, text: str) -> str:
        """Of one canonical text."""
        return hmac.digest(self._secret, b"ctr value\0" + text.encode(), "sha256").hex()[:32]

    def pseudonyms(self, texts: pl.Series) -> pl.Series:
        """Pseudonyms of canonical texts (n,), null where missing; each distinct text is hashed once."""
        coded = texts.rechunk().to_arrow().dictionary_encode()
        hashed = [self.pseudonym(text) for text in coded.dictionary.to_pylist()]
        found = pl.Series(hashed, dtype=pl.String).to_arrow().take(coded.indices)
        return pl.Series(texts.name, found, dtype=pl.String)


def load_key(fields: Iterable[str]) -> Key:
    """The key for the personal fields `fields`; blanks around it do not count.

    Raises:
        ConfigError: there is none, there are two, it cannot be read, or it is too short.
    """
    secret, path = os.environ.get(KEY), os.environ.get(KEY_FILE)
    if secret and path:
        raise ConfigError(f'both "{KEY}" and "{KEY_FILE}" are set: expected one of them, unset the other')
    if secret:
        return _key(os.fsencode(secret), f'environment variable "{KEY}"')
    if path:
        try:
            return _key(Path(path).read_bytes(), f'"{KEY_FILE}", file "{path}"')
        except OSError as error:
            raise ConfigError(f'"{KEY_FILE}", file "{path}": cannot be read: {error.strerror}') from None
    names = ", ".join(f'"{name}"' for name in sorted(fields))
    raise ConfigError(
        f"no key to replace the personal data (pii = true) of {names}: set the environment variable "
        f'"{KEY}" to a secret of at least {_SHORTEST} bytes, or "{KEY_FILE}" to a file that holds it'
    )


def _key(text: bytes, where: str) -> Key:
    secret = text.strip()
    if len(secret) < _SHORTEST:
        raise ConfigError(f"{where}: expected a key of at least {_SHORTEST} bytes, found {len(secret)}")
    return Key(secret)
