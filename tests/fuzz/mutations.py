"""One change of an archive's fields at a time, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.document import Document, Field, Frame, Section

EDGES = (
    0, 1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 127, 128, 129, 255, 256, 257, 2047, 2048, 4096, 16384,
    16385, 32767, 65535, 65536, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**47, 2**48 - 1,
    2**48, 2**63, 2**64 - 1,
)  # fmt: skip
_FAR = 0.2  # share of numbers that are replaced by one of the edges; others move a little

Mutation = Callable[[random.Random, Document, Document], None]
"""Changes the first document in place; the second is another one, to take parts from."""


def mutate(rng: random.Random, document: Document, other: Document) -> list[str]:
    """Change `document` once to three times; returns the names of what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutation = rng.choices(*zip(*WEIGHTED, strict=True))[0]
        mutation(rng, document, other)
        done.append(mutation.__name__)
    return done


def raw_damage(rng: random.Random, data: bytes) -> bytes:
    """Bytes as an accident leaves them: checksums stay what they were."""
    out, at = bytearray(data), rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            out[at] ^= 1 << rng.randrange(8)
        case 1:
            del out[at:]
        case 2:
            del out[at : at + rng.randint(1, 8)]
        case _:
            out[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(out)


def changed_number(rng: random.Random, value: int) -> int:
    """Another value: one step away, another bit, or an edge."""
    if rng.random() < _FAR:
        return rng.choice(EDGES)
    return rng.choice([value + 1, value - 1, value ^ 1 << rng.randrange(10), 2 * value, value // 2])


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bits flipped, bytes put in, taken out, doubled, cleared, cut off; other bytes altogether."""
    out = bytearray(data)
    at, n = rng.randrange(len(out) + 1), rng.choice([1, 1, 2, 4, 9])
    match rng.randrange(9):
        case 0 | 1 if out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        case 2:
            out[at:at] = rng.randbytes(n)
        case 3:
            del out[at : at + n]
        case 4:
            out[at:at] = out[at : at + n]
        case 5:
            out[at : at + n] = bytes(len(out[at : at + n]))
        case 6:
            del out[at:]
        case 7:
            out += rng.choice([b"\0", b"\1", b"\xff", rng.randbytes(n)])
        case _:
            out[:] = rng.randbytes(len(out))
    return bytes(out)


def change_field(rng: random.Random, field: Field) -> None:
    """Another value of a field, whatever its kind; of a varint perhaps another spelling."""
    if field.kind == "bytes":
        field.raw = changed_bytes(rng, field.raw)
    elif field.kind == "varint" and rng.random() < 0.1:
        field.raw = field.raw[:-1] + bytes([field.raw[-1] | 128, 0])
    else:
        field.put(changed_number(rng, field.number))


def any_field(rng: random.Random, document: Document, _: Document) -> None:
    """Of all fields with the same chance; most are those of weights."""
    change_field(rng, rng.choice(list(document.all_fields())))


def field_of_a_part(rng: random.Random, document: Document, _: Document) -> None:
    """Header, each section, each frame and the index have the same chance."""
    parts = [document.header, *(s.fields for s in document.sections)]
    parts += [f.fields for f in document.frames] + [document.index, document.table]
    part = rng.choice([part for part in parts if part])
    change_field(rng, rng.choice(part))


def streams(rng: random.Random, document: Document, other: Document) -> None:
    """The coded stream of a unit or of the weights."""
    names = ("coded", "stream", "section 6", "body")
    fields = [f for f in document.all_fields() if f.name in names]
    if fields:
        change_field(rng, rng.choice(fields))
    else:
        any_field(rng, document, other)


def fields_move(rng: random.Random, document: Document, _: Document) -> None:
    """A field left out, doubled, or put where its neighbour is."""
    parts = [p.fields for p in (*document.sections, *document.frames) if p.fields]
    parts += [document.index] if document.index else []
    if parts:
        _move(rng, rng.choice(parts))


def sections_move(rng: random.Random, document: Document, _: Document) -> None:
    """A section left out, doubled, or put where its neighbour is."""
    if document.sections:
        _move(rng, document.sections)


def frames_move(rng: random.Random, document: Document, _: Document) -> None:
    """A unit left out, doubled, or put where its neighbour is; its checksum in the index stays."""
    if document.frames:
        _move(rng, document.frames)


def _move(rng: random.Random, items: list) -> None:  # type: ignore[type-arg]
    at = rng.randrange(len(items))
    match rng.randrange(3):
        case 0:
            del items[at]
        case 1:
            items.insert(at, items[at])
        case _:
            to = (at + 1) % len(items)
            items[at], items[to] = items[to], items[at]


def section_header(rng: random.Random, document: Document, _: Document) -> None:
    """Kind, flags, length or checksum of a section."""
    if not document.sections:
        return
    section = rng.choice(document.sections)
    match rng.randrange(4):
        case 0:
            section.kind = rng.choice([*range(10), 127, 128, 200, 255])
        case 1:
            section.flags = rng.choice([1, 128, 255])
        case 2:
            section.longer = rng.choice([1, -1, 5, 2**24, 2**40])
        case _:
            section.crc = 1 << rng.randrange(32)


def new_section(rng: random.Random, document: Document, _: Document) -> None:
    """An optional section, a name, or one of a kind that stands elsewhere."""
    kind = rng.choice([1, 1, 128, 129, 255, rng.randrange(256)])
    payload = rng.choice([b"a name", b"", b"..", b"a/b", b"\xc2\x85", rng.randbytes(9)])
    section = Section(kind, [Field("new", "bytes", payload)])
    document.sections.insert(rng.randint(0, min(3, len(document.sections))), section)


def frame_header(rng: random.Random, document: Document, _: Document) -> None:
    """Length or checksum of a unit's frame."""
    if document.frames:
        frame = rng.choice(document.frames)
        if rng.random() < 0.5:
            frame.longer = rng.choice([1, -1, 3, 1000, 2**33])
        else:
            frame.crc = 1 << rng.randrange(32)


def new_frame(rng: random.Random, document: Document, _: Document) -> None:
    """A unit that no group asks for."""
    if document.frames:
        frame = Frame([Field("coded", "bytes", rng.randbytes(rng.randrange(9)))])
        document.frames.insert(rng.randint(0, len(document.frames)), frame)


def splice(rng: random.Random, document: Document, other: Document) -> None:
    """A section, or all units, of another archive."""
    kinds = [s.kind for s in document.sections]
    shared = [s for s in other.sections if s.kind in kinds and s.fields]
    if not shared or rng.random() < 0.2:
        document.frames, document.index = other.frames[:], other.index[:]
        return
    section = rng.choice(shared)
    document.sections[kinds.index(section.kind)] = section


def context(rng: random.Random, document: Document, _: Document) -> None:
    """A field of the context section; or a section that was not there, or none where one was."""
    contexts = [s for s in document.sections if s.kind == 7]
    if contexts and rng.random() < 0.8:
        change_field(rng, rng.choice(contexts[0].fields))
    elif contexts:
        document.sections.remove(contexts[0])
    elif len(document.sections) > 1:
        raw = rng.choice([b"\x01\x08\x08\x08", b"\x02\x08\x08\x08\0\0", b"\x03\x08\x08\x08\0\0"])
        fields = [Field("number", "number", raw[i : i + 1]) for i in range(4)]
        fields += [Field("entry", "varint", raw[i : i + 1]) for i in range(4, len(raw))]
        document.sections.insert(1, Section(7, fields))


def footer(rng: random.Random, document: Document, _: Document) -> None:
    """Offset of the index, digest, bytes behind the end, checksum of the header."""
    match rng.randrange(4):
        case 0:
            document.shift = rng.choice([1, -1, 12, 2**32, 2**63])
        case 1:
            document.digest = changed_bytes(rng, document.digest)
        case 2:
            document.tail = rng.choice([b"\0", document.pack(), rng.randbytes(5)])
        case _:
            document.header_crc = 1 << rng.randrange(32)


def index_lengths(rng: random.Random, document: Document, _: Document) -> None:
    """A length in the index that is not that of the frame, or is spelt longer."""
    if document.frames:
        document.lengths = document.true_lengths()
        change_field(rng, rng.choice(document.lengths))


def index_end(rng: random.Random, document: Document, _: Document) -> None:
    """Bytes behind the index, or too few of it."""
    if document.index:
        document.index[-1].raw = changed_bytes(rng, document.index[-1].raw)


def size(rng: random.Random, document: Document, _: Document) -> None:
    """The declared size, and nothing else."""
    change_field(rng, document.header[-1])


def alphabet(rng: random.Random, document: Document, _: Document) -> None:
    """A byte value more, or less."""
    fields = [f for f in document.all_fields() if f.name == "alphabet" and len(f.raw) == 32]
    for field in fields:
        bits = int.from_bytes(field.raw, "little") ^ 1 << rng.randrange(256)
        field.raw = bits.to_bytes(32, "little")


WEIGHTED: tuple[tuple[Mutation, int], ...] = (
    (any_field, 4), (field_of_a_part, 8), (streams, 5), (fields_move, 2), (sections_move, 1),
    (frames_move, 2), (section_header, 1), (new_section, 1), (frame_header, 1), (new_frame, 1),
    (splice, 3), (context, 3), (footer, 1), (index_end, 1), (index_lengths, 1), (size, 2),
    (alphabet, 1),
)  # fmt: skip
