"""A small mutator: valid bytes in, damaged ones out; the same number gives the same damage."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, 2, 3, 7, 255, 256, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (
    "", "nan", "inf", "-1", "1e400", "[[[", "{", "null", "~", "*a", "&a [*a]", '"', "'", "\0", "\x1b[31m", "=1+1",
    "../../x", "/etc/passwd", "9" * 40, "é", "\ud800", "a" * 3000, ",", ";", "\n", "\t", ": ", "- ", "!!python/object",
)  # fmt: skip

Mutation = Callable[[bytearray, random.Random], bytearray]


def flip(data: bytearray, draw: random.Random) -> bytearray:
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    return data


def set_byte(data: bytearray, draw: random.Random) -> bytearray:
    data[draw.randrange(len(data))] = draw.choice(BYTES)
    return data


def set_number(data: bytearray, draw: random.Random) -> bytearray:
    """A length, a count or an offset becomes another."""
    kind = draw.choice(("<H", ">H", "<I", ">I"))
    value = draw.choice(NUMBERS) % 2 ** (8 * struct.calcsize(kind))
    at = draw.randrange(max(1, len(data) - 4))
    data[at : at + struct.calcsize(kind)] = struct.pack(kind, value)
    return data


def cut(data: bytearray, draw: random.Random) -> bytearray:
    return data[: draw.randrange(len(data))]


def remove(data: bytearray, draw: random.Random) -> bytearray:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice((1, 2, 4, 16, 100))]
    return data


def repeat(data: bytearray, draw: random.Random) -> bytearray:
    at = draw.randrange(len(data))
    part = data[at : at + draw.choice((1, 2, 8, 64))]
    data[at:at] = part * draw.choice((1, 2, 10))
    return data


def swap(data: bytearray, draw: random.Random) -> bytearray:
    one, two, size = draw.randrange(len(data)), draw.randrange(len(data)), draw.choice((1, 4, 12))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return data


def put_word(data: bytearray, draw: random.Random) -> bytearray:
    at = draw.randrange(len(data) + 1)
    data[at : at + draw.choice((0, 0, 1, 5))] = draw.choice(WORDS).encode("utf-8", "surrogatepass")
    return data


BINARY: tuple[Mutation, ...] = (flip, set_byte, set_byte, set_number, set_number, cut, remove, repeat, swap)
TEXT: tuple[Mutation, ...] = (flip, set_byte, cut, remove, repeat, swap, put_word, put_word, put_word)


def mutate(seed: bytes, number: int, *, mutations: tuple[Mutation, ...] = BINARY, head: int = 0) -> bytes:
    """The seed with one to four damages, most often in its first ``head`` bytes (0: anywhere)."""
    draw = random.Random(number)
    split = head if head and draw.random() < 0.8 else len(seed)
    data, rest = bytearray(seed[:split]), seed[split:]
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not data:
            break
        data = draw.choice(mutations)(data, draw)
    return bytes(data) + rest


def with_sums(png: bytes) -> bytes:
    """A damaged PNG whose chunks have the right check sums: the damage reaches what lies behind them."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + size]
        if at + 12 + size > len(png):
            break
        out += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(out) + png[at:]
