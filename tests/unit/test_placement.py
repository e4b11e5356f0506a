"""Where "auto" codes: by the times of both devices, and only where the choice is worth a trial."""

from __future__ import annotations

import pytest
import torch

from mdlzip.errors import LimitExceeded
from mdlzip.quantised import placement, selftest
from mdlzip.quantised.placement import CodingTimes, choose_device, coding_times
from mdlzip.symbols.layout import Layout

NETWORK = selftest.random_network(selftest.CONFIGS[0])
LARGE = Layout(10**9, 512, 128)


def test_times_are_of_all_threads_together() -> None:
    one, two = (coding_times(NETWORK, Layout(4096, 64, 16), "cpu", threads=n) for n in (1, 8))
    pairs = (one.predict_ahead_s, two.predict_ahead_s), (one.predict_s, two.predict_s)
    for first, second in pairs:
        assert 0 < second < first < 1e-2


def test_a_name_is_taken_at_its_word() -> None:
    assert choose_device("cuda:3", NETWORK, LARGE) == "cuda:3"
    assert choose_device("auto", None, LARGE) == "cpu", "the experts alone need no device"


@pytest.mark.parametrize(("there_s", "total_bytes", "expected"), [
    (1e-7, 10**9, "cuda"), (1e-5, 10**9, "cpu"), (1e-7, 10**6, "cpu"), (None, 10**9, "cpu"),
])  # fmt: skip
def test_the_faster_device_codes(
    there_s: float | None, total_bytes: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One microsecond a symbol on the CPU; None: the GPU has too little memory."""

    def times(network: object, layout: object, device: str, **more: object) -> CodingTimes:
        if device == "cuda" and there_s is None:
            raise LimitExceeded("too little memory")
        each = there_s if device == "cuda" and there_s else 1e-6
        return CodingTimes(each, each, each, each)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(placement, "coding_times", times)
    assert choose_device("auto", NETWORK, Layout(total_bytes, 512, 128)) == expected
