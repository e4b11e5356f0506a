"""First signal asks, second insists; what the parent ignores stays ignored."""

from __future__ import annotations

import os
import signal

import pytest

from mdlzip.cli.signals import Cancelled, StopSwitch


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_outside_training_it_stops_at_once(signum: signal.Signals) -> None:
    with StopSwitch().installed() as switch:
        with pytest.raises(Cancelled) as caught:
            os.kill(os.getpid(), signum)
        assert caught.value.signum == signum and not switch.should_stop()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_training_the_first_asks_and_the_second_insists(
    signum: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopSwitch().installed() as switch:
        switch.enter_phase(graceful=True)
        os.kill(os.getpid(), signum)
        assert switch.should_stop() and switch.received == signum
        told = capfd.readouterr().err
        assert told.startswith("mdlzip: stopping after a checkpoint") and told.count("\n") == 1
        with pytest.raises(Cancelled):
            os.kill(os.getpid(), signum)


def test_a_signal_too_late_for_a_checkpoint_still_stops() -> None:
    switch = StopSwitch()
    switch.enter_phase(graceful=True)
    switch.handle(signal.SIGINT)
    with pytest.raises(Cancelled):
        switch.enter_phase(graceful=False)


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSwitch().installed() as switch:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            assert not switch.should_stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back() -> None:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with StopSwitch().installed():
        pass
    assert {s: signal.getsignal(s) for s in before} == before
