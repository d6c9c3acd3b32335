"""Commit records as a driver holds them: hundreds of thousands, where a night has a billion conversations.

Under fifty configurations a record is 30 kB of text, and several times that as objects. Nearly all of it is what
columns were scored by, the same in all records, and sums, which are looked at one record after the other. So the former
is held once, and the latter stay compressed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import ItemsView, Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["ALIKE", "Packed", "encode", "light"]

ALIKE = ("columns", "rows_of")
"""What most records have in common."""
LEVEL = 1
"""Of compression; more of it takes three times as long for a tenth of the bytes."""


class Packed(Mapping[str, Any]):
    """A mapping that is compressed until it is looked into."""

    __slots__ = ("data",)

    def __init__(self, data: bytes):
        self.data = data

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Packed:
        """Compress plain values."""
        return cls(zlib.compress(json.dumps(values, ensure_ascii=False).encode(), LEVEL))

    @classmethod
    def from_text(cls, text: str) -> Packed:
        """The inverse of `to_text`."""
        return cls(base64.b64decode(text, validate=True))

    def to_text(self) -> str:
        """As it is, for JSON."""
        return base64.b64encode(self.data).decode()

    def __getitem__(self, key: str) -> Any:
        return _unpacked(self.data)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_unpacked(self.data))

    def __len__(self) -> int:
        return len(_unpacked(self.data))

    def items(self) -> ItemsView[str, Any]:
        """All at once."""
        return _unpacked(self.data).items()


@lru_cache(maxsize=32)
def _unpacked(data: bytes) -> dict[str, Any]:
    """What was compressed; the latest few are remembered, because whoever asks for one key asks for all."""
    return json.loads(zlib.decompress(data))


def light(record: dict[str, Any]) -> dict[str, Any]:
    """Return a commit record with its sums packed, and with the same object as other records where it says the same."""
    if isinstance(record.get("summary"), Packed):
        return record
    alike = {name: _one_of(json.dumps(record[name])) for name in ALIKE if name in record}
    return record | alike | ({"summary": Packed.of(record["summary"])} if "summary" in record else {})


@lru_cache(maxsize=256)
def _one_of(text: str) -> Any:
    return json.loads(text)


def encode(record: Mapping[str, Any]) -> str:
    """Return a commit record as its file holds it."""
    return json.dumps(record, ensure_ascii=False, default=dict)
