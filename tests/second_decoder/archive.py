"""docs/format.md: the container."""

import lzma
from collections.abc import Iterable
from hashlib import sha256
from types import SimpleNamespace
from zlib import crc32

from tests.second_decoder.context import longest_section, read_context, units_of
from tests.second_decoder.data import decode_units
from tests.second_decoder.fields import Fields, Refused, Undecoded, require
from tests.second_decoder.model import read_config, read_model
from tests.second_decoder.predictor import NoNetwork, Predictor

Learned = SimpleNamespace | None
STORED, ZSTD, XZ, LEARNED = range(4)
NAME, CONFIGURATION, WEIGHTS, GROUPS, INDEX, PAYLOAD, CONTEXT, MODEL = range(1, 9)
CARD = 128
NOT_IN_NAMES = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029", "/", "\\"}


def decode(data: bytes, limit: int = 1 << 24, models: Iterable[bytes] = ()) -> bytes:
    """The original in an archive; raises Refused, and nothing else, for what is none.

    models: files that it may name. Undecoded is raised for zstd payloads, for a newer version, for
    a model that is none of these, and for learned archives of more than `limit` weights or bytes,
    once the container has been checked.
    """
    return read_archive(data, limit, {sha256(model).digest(): model for model in models})[0]


def read_archive(data: bytes, limit: int, models: dict[bytes, bytes]) -> tuple[bytes, Learned]:
    """(The original; what was learned, None if nothing was)."""
    fields = Fields(data, "archive")
    method, size = read_header(fields)
    try:
        original, model = read_body(fields, method, size, limit, models)
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise Refused(f"name or payload: {error}") from None
    for at in range(0, size if method != LEARNED else 0, 65536):
        require(crc32(original[at : at + 65536]) == fields.number(4), f"footer: block at {at}")
    require(sha256(original).digest() == fields.take(32), "footer: SHA-256 of the original")
    fields.end()
    return original, model


def read_header(fields: Fields) -> tuple[int, int]:
    """Method, and bytes of the original."""
    require(fields.data[:4] == b"\x93mdz", "header: this is no mdlzip archive")
    header = Fields(fields.take(26), "header")
    require(crc32(header.data[:22]) == int.from_bytes(header.data[22:], "little"), "header: CRC")
    header.take(4)
    if header.number(1, least=1) > 1:
        raise Undecoded("header: the archive needs a newer mdlzip")
    method, mode = header.number(1, STORED, LEARNED), header.number(2)
    require(mode <= 0o777 or mode == 0xFFFF, "header: mode")
    header.take(8)
    return method, header.number(6)


def read_body(
    fields: Fields, method: int, size: int, limit: int, models: dict[bytes, bytes]
) -> tuple[bytes, Learned]:
    """The original, by what stands between header and SHA-256, and what was learned."""
    if method == STORED:
        return fields.take(size), None
    require(size > 0, "header: an empty original is stored")
    if fields.peek() == NAME:
        name = section(fields, NAME, 255).data.decode("utf-8")
        require(name not in ("", ".", "..") and not set(name) & NOT_IN_NAMES, "name: not plain")
    last = 127
    while fields.peek() > last:  # optional sections
        last = fields.peek()
        section(fields, last, 2**24 if last != CARD else 65536)
    if method != LEARNED:
        return read_payload(fields, method, size), None
    return read_learned(fields, size, limit, models)


def section(fields: Fields, kind: int, most: int) -> Fields:
    """The payload of the section that must follow, at most so long; none of a framed one."""
    head = Fields(fields.take(12), f"section {kind}")
    require(head.take(2) == bytes([kind, 0]), f"section {kind}: another kind, or flags")
    length, crc = head.number(6), head.number(4)
    require(length <= most if kind != GROUPS else length == most, f"section {kind}: length")
    payload = fields.take(length) if kind != GROUPS else b""
    require(crc32(payload, crc32(head.data[:8])) == crc, f"section {kind}: CRC")
    return Fields(payload, f"section {kind}")


def read_payload(fields: Fields, method: int, size: int) -> bytes:
    payload = section(fields, PAYLOAD, 2 * size + 131072)
    require(size <= payload.left() * 32768 + 131072, "payload: too short for the original")
    if method == ZSTD:
        require(fields.left() == 4 * -(-size // 65536) + 32, "footer: not as long as it must be")
        raise Undecoded("zstd payload: not decoded here")
    most = min(26, max(12, (size - 1).bit_length()))
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << payload.number(1, 12, most)}]
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    original = decoder.decompress(payload.take(payload.left()), max_length=size + 1)
    ends = decoder.eof and not decoder.unused_data
    require(ends and len(original) == size, "payload: does not end where its stream does")
    return original


def read_learned(
    fields: Fields, size: int, limit: int, models: dict[bytes, bytes]
) -> tuple[bytes, Learned]:
    """The container is checked before anything is decoded."""
    config, weights = read_config(section(fields, CONFIGURATION, 24)), None
    group_bytes, context = config.chunk_size * config.group_chunks, None
    n_groups = -(-size // group_bytes)
    if fields.peek() == CONTEXT:
        payload = section(fields, CONTEXT, longest_section(n_groups))
        context = read_context(payload, n_groups)
    require(context or config.family == 0, "configuration: without network and context")
    if named := fields.peek() == MODEL:
        payload = section(fields, MODEL, 32)
        model_id = payload.take(32)
    else:
        weights = section(fields, WEIGHTS, 8 * config.cells + 65536)
    section(fields, GROUPS, 2**48 - 1)
    units, frames = [], []
    for unit in units_of(context, n_groups):
        sizes = [min(group_bytes, size - group * group_bytes) for group in unit]
        length = fields.varint(4 * sum(sizes) + 64)
        crc, coded = fields.number(4), fields.take(length)
        require(crc32(coded) == crc, f"unit {len(frames)}: CRC of the coded stream")
        units.append(list(zip(unit, sizes, strict=True)))
        frames.append(([group * group_bytes for group in unit], sizes, coded))
    index_at = fields.at
    index = section(fields, INDEX, 11 * len(frames))
    for _, _, coded in frames:
        require(index.varint(2**48 - 1) == len(coded), "index: another length than the frame's")
    crcs = [index.number(4) for _ in frames]
    index.end()
    require(fields.number(8) == index_at, "footer: offset of the index")
    require(fields.left() == 32, "footer: not 40 bytes")
    if max(config.cells, size) > limit:
        raise Undecoded("more than this decoder was told to decode")
    text = b""
    if named:
        model, text = open_model(model_id, config, limit, models)
    else:
        model = read_model(weights, config)
    predictor = Predictor(model) if config.family == 0 else NoNetwork(model)
    decoded = list(decode_units(predictor, context, frames, text))
    require(list(map(crc32, decoded)) == crcs, "index: CRC of a decoded unit")
    groups = {}
    for unit, plain in zip(units, decoded, strict=True):
        parts = Fields(plain, "unit")
        groups |= {group: parts.take(n) for group, n in unit}
    return b"".join(groups[group] for group in range(n_groups)), None if named else model


def open_model(
    model_id: bytes, config: SimpleNamespace, limit: int, models: dict[bytes, bytes]
) -> tuple[SimpleNamespace, bytes]:
    """(What an archive of this configuration takes from its model, the text)."""
    if model_id not in models:
        raise Undecoded("model section: the model is not at hand")
    text, found = read_archive(models[model_id], limit, {})
    require(found is not None and found.family == 0, "model: has no network")
    require(len(text) <= 262144, "model: its original is too long")
    own = vars(config)
    cut = {name: own[name] for name in ("chunk_size", "group_chunks")}
    model = SimpleNamespace(**vars(found) | cut)
    require(all(vars(model)[name] == own[name] for name in own), "configuration: another network")
    require(max(map(len, model.strings)) <= config.chunk_size // 2, "model: a string is too long")
    return model, text
