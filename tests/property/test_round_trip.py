"""Any bytes come back, whatever the method, the cut and the way they travel."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mdlzip
from mdlzip.codec import CompressOptions
from mdlzip.symbols.context import MODES
from tests.archive_tools import GENERAL_METHODS, decode, general_archive, random_network

ANYTHING = st.one_of(
    st.binary(max_size=700),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(lambda unit, n: unit * n, st.binary(min_size=1, max_size=5), st.integers(0, 400)),
)
NETWORK = random_network()
RELAXED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(RELAXED, max_examples=150)
@given(ANYTHING, st.sampled_from(GENERAL_METHODS))
def test_general_methods(data: bytes, method: str) -> None:
    if not data and method != "stored":
        return  # nothing is always stored
    archive = general_archive(method, data, "n" if method != "stored" else None)
    assert decode(archive) == decode(archive, pipe=True) == data


@settings(RELAXED, max_examples=40)
@given(ANYTHING)
def test_smallest_method(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(data)
        report = mdlzip.compress(path, options=CompressOptions(remove_source=True))
        assert report.archive_bytes <= len(data) + 62
        assert sum(report.ledger.values()) == report.archive_bytes
        mdlzip.decompress(f"{path}.mdlz")
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("weights", "context"), [("coo", "chunk"), *(("coded", mode) for mode in MODES)]
)
@settings(RELAXED, max_examples=20)
@given(
    data=ANYTHING.filter(len),
    chunk_size=st.integers(16, 300),
    group_chunks=st.integers(1, 5),
    windows=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700)), min_size=1, max_size=5),
)
def test_learned(
    weights: str,
    context: str,
    data: bytes,
    chunk_size: int,
    group_chunks: int,
    windows: list[tuple[int, int]],
) -> None:
    options = CompressOptions(
        chunk_size=chunk_size,
        group_chunks=group_chunks,
        weights=weights,
        context=context,
        device="cpu",
        threads=1,
        verify=False,
        force=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path, archive = Path(folder) / "f", Path(folder) / "a"
        path.write_bytes(data)
        report = mdlzip.compress(path, archive, options, network=NETWORK)
        assert report.method == "learned"
        packed = archive.read_bytes()
        assert sum(report.ledger.values()) == len(packed)
        assert mdlzip.inspect(archive).ledger == report.ledger
        assert decode(packed) == decode(packed, pipe=True) == data
        with mdlzip.open(archive, threads=1) as opened:
            for offset, n in windows:
                assert opened.read(offset, n) == data[offset : offset + n]
