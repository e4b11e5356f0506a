"""Records: short byte strings, coded one by one with a model that both sides have.

    codec = mdlzip.Codec("logs.mdlm")
    small = codec.encode(b'{"user": 17, "action": "open"}')
    codec.decode(small)

The counterpart of a compressor with a dictionary: no record needs another one. docs/records.md
specifies the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import named_model, read_model, survey_model
from mdlzip.errors import CorruptArchive, UsageError, WrongType
from mdlzip.limits import DEFAULT_MEMORY_BYTES

MAX_RECORD_BYTES = 1 << 20
_ESCAPE = b"\xff"  # no stream begins so
_STORED = _ESCAPE + b"\0"
_END = b"\n"
_Bytes = bytes | bytearray | memoryview


class Codec:
    """Encodes and decodes records with a model; any number of threads may use one at once.

    model: a model file, or what it is called in the model folder. threads: of one call, None for
    one per core; memory: limit for reading the model, bytes. Raises MissingModel, UsageError,
    CorruptArchive, LimitExceeded.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        threads: int | None = None,
        memory: int = DEFAULT_MEMORY_BYTES,
        allow_slow: bool = False,
    ) -> None:
        found = survey_model(named_model(str(model)))
        network = read_model(found, Machine("cpu", threads, memory, allow_slow))
        from mdlzip.quantised.record_coder import RecordCoder

        self.model_id = network.model_id.hex()
        self._piece = found.layout.chunk_size
        self._coder = RecordCoder(network, self._piece, threads)
        self._unknown = bytes(i for i, known in enumerate(self._coder.known) if not known)

    def encode(self, record: _Bytes) -> bytes:
        """The record in fewer bytes, or in two more than it has at the most.

        Raises UsageError for a record of more than 1 MiB, WrongType for anything but bytes.
        """
        return self.encode_many([record])[0]

    def decode(self, coded: _Bytes) -> bytes:
        """The record that `encode` got, if the model is the same.

        Raises CorruptArchive for bytes that no encoder writes. Most other damage goes unnoticed:
        a record has no checksum.
        """
        return self.decode_many([coded])[0]

    def encode_many(self, records: Iterable[_Bytes]) -> list[bytes]:
        """`encode` of each, several at a time: the same bytes, sooner."""
        whole = [_checked(record, MAX_RECORD_BYTES) for record in records]
        lines = [self._is_line(record) for record in whole]
        coded = iter(
            self._coder.encode([r + _END for r, line in zip(whole, lines, strict=True) if line])
        )
        pieces = [[] if line else self._pieces(r) for r, line in zip(whole, lines, strict=True)]
        streams = iter(self._coder.encode([piece for some in pieces for piece in some]))
        out = []
        for record, line, some in zip(whole, lines, pieces, strict=True):
            one = next(coded) if line else _joined(record, [next(streams) for _ in some])
            out.append(one if len(one) < len(record) + len(_STORED) else _STORED + record)
        return out

    def decode_many(self, coded: Iterable[_Bytes]) -> list[bytes]:
        """`decode` of each, several at a time."""
        data = [_checked(one, MAX_RECORD_BYTES + len(_STORED)) for one in coded]
        lines = iter(self._coder.decode([one for one in data if not one.startswith(_ESCAPE)]))
        streams: list[bytes] = []
        sizes: list[int] = []
        counts: list[int] = []
        for one in data:
            if one.startswith(_ESCAPE) and not one.startswith(_STORED):
                found, lengths = self._split(one[len(_ESCAPE) :])
                streams += found
                sizes += lengths
                counts.append(len(found))
        texts, left = iter(self._coder.decode(streams, sizes)), iter(counts)
        out = []
        for one in data:
            if not one.startswith(_ESCAPE):
                out.append(_without_end(next(lines)))
            elif one.startswith(_STORED):
                out.append(one[len(_STORED) :])
            else:
                out.append(b"".join(next(texts) for _ in range(next(left))))
        return out

    def _is_line(self, record: bytes) -> bool:
        """Whether it is coded as a line, which ends itself."""
        return _END not in record and len(record) < self._piece and self._knows(record + _END)

    def _knows(self, record: bytes) -> bool:
        return not self._unknown or record.translate(None, self._unknown) == record

    def _pieces(self, record: bytes) -> list[bytes]:
        """What is coded by itself; nothing if that cannot be done."""
        if not self._knows(record):
            return []
        return [record[i : i + self._piece] for i in range(0, len(record), self._piece)]

    def _split(self, data: bytes) -> tuple[list[bytes], list[int]]:
        """The streams of a coded record and the bytes that each decodes to."""
        cursor = Cursor(data, "record")
        size = cursor.varint("length", MAX_RECORD_BYTES)
        sizes = [min(self._piece, size - i) for i in range(0, size, self._piece)]
        streams = []
        for _ in sizes[:-1]:
            length = cursor.varint("length of a piece", cursor.left)
            streams.append(bytes(cursor.take(length, "piece")))
        return [*streams, bytes(cursor.take(cursor.left, "piece"))], sizes


def _joined(record: bytes, streams: Sequence[bytes]) -> bytes:
    """The streams of a record with what a decoder must know, or the record as it is."""
    if not streams:
        return _STORED + record
    coded = _ESCAPE + put_varint(len(record))
    for stream in streams[:-1]:
        coded += put_varint(len(stream)) + stream
    return coded + streams[-1]


def _without_end(line: bytes) -> bytes:
    record = line.removesuffix(_END)
    if _END in record or len(record) == len(line):
        raise CorruptArchive("record: does not end with its newline")
    return record


def _checked(record: object, most: int) -> bytes:
    if not isinstance(record, (bytes, bytearray, memoryview)):
        raise WrongType(f"a record must be bytes, not {type(record).__name__}")
    data = bytes(record)
    if len(data) > most:
        raise UsageError(f"a record of {len(data):,} bytes: {most:,} are the most")
    return data
