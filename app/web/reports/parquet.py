"""Parquet, as far as one small table needs it: one row group, a page for each column, not packed.

Every library that writes Parquet weighs 25 MB and more, for a table of some hundred rows. The format is written down
and does not change: data pages of the first kind in PLAIN encoding, and a footer in Thrift's compact protocol.
https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAGIC = b"PAR1"
INT64, DOUBLE, BYTE_ARRAY = 2, 5, 6  # Parquet's physical types
KINDS = {str: BYTE_ARRAY, float: DOUBLE, int: INT64}
OPTIONAL, UTF8, PLAIN, RLE = 1, 0, 0, 3
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12  # Thrift's


def file(columns: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The table as a file; a value that is None is a null. Columns are of str, float or int."""
    body, chunks = bytearray(MAGIC), []
    for name, kind in columns.items():
        start = len(body)
        body += _page(kind, [row[name] for row in rows])
        chunks.append(_chunk(name, kind, len(rows), start, len(body) - start))
    footer = _footer(columns, chunks, len(rows), len(body) - len(MAGIC))
    return bytes(body + footer + struct.pack("<I", len(footer)) + MAGIC)


def _page(kind: type, values: Sequence[Any]) -> bytes:
    """A column's values, with for each whether there is one."""
    levels = _levels([value is not None for value in values])
    data = (
        struct.pack("<I", len(levels)) + levels + b"".join(_plain(kind, value) for value in values if value is not None)
    )
    head = _struct([(1, I32, len(values)), (2, I32, PLAIN), (3, I32, RLE), (4, I32, RLE)])
    return _struct([(1, I32, 0), (2, I32, len(data)), (3, I32, len(data)), (5, STRUCT, head)]) + data


def _levels(there: Sequence[bool]) -> bytes:
    """Bits packed by eight, the first one lowest, after how many eights there are."""
    groups = -(-len(there) // 8)
    bits = sum(1 << number for number, one in enumerate(there) if one)
    return _varint(groups << 1 | 1) + bits.to_bytes(groups, "little")


def _plain(kind: type, value: Any) -> bytes:
    if kind is str:
        data = str(value).encode()
        return struct.pack("<I", len(data)) + data
    return struct.pack("<d", value) if kind is float else struct.pack("<q", value)


def _chunk(name: str, kind: type, number: int, start: int, length: int) -> bytes:
    what = _struct(
        [
            (1, I32, KINDS[kind]),
            (2, LIST, (I32, [_zigzag(PLAIN), _zigzag(RLE)])),
            (3, LIST, (BINARY, [_binary(name)])),
            (4, I32, 0),
            (5, I64, number),
            (6, I64, length),
            (7, I64, length),
            (9, I64, start),
        ]
    )
    return _struct([(2, I64, start), (3, STRUCT, what)])


def _footer(columns: Mapping[str, type], chunks: Sequence[bytes], rows: int, length: int) -> bytes:
    schema = [_struct([(4, BINARY, "table"), (5, I32, len(columns))])]
    for name, kind in columns.items():
        text = [(6, I32, UTF8)] if kind is str else []
        schema.append(_struct([(1, I32, KINDS[kind]), (3, I32, OPTIONAL), (4, BINARY, name), *text]))
    group = _struct([(1, LIST, (STRUCT, chunks)), (2, I64, length), (3, I64, rows)])
    fields = [(1, I32, 1), (2, LIST, (STRUCT, schema)), (3, I64, rows), (4, LIST, (STRUCT, [group]))]
    return _struct([*fields, (6, BINARY, "berth")])


def _struct(fields: Iterable[tuple[int, int, Any]]) -> bytes:
    """Fields with their numbers, each as far from the one before; numbers in order."""
    found, last = bytearray(), 0
    for number, kind, value in fields:
        found.append((number - last) << 4 | kind)
        found += _value(kind, value)
        last = number
    return bytes(found) + b"\0"


def _value(kind: int, value: Any) -> bytes:
    if kind in {I32, I64}:
        return _zigzag(value)
    if kind == BINARY:
        return _binary(value)
    if kind == LIST:
        of, parts = value
        head = bytes([len(parts) << 4 | of]) if len(parts) < 15 else bytes([0xF0 | of]) + _varint(len(parts))
        return head + b"".join(parts)
    return bytes(value)


def _binary(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 ^ value >> 63)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
