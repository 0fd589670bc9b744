"""Ctrl-C and SIGTERM as a request that the loop answers after the step it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


class StopRequest:
    """`with StopRequest() as stop:` sets `stop.signal` at the first SIGINT or SIGTERM.

    A second SIGINT interrupts at once. Outside the main thread Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._requested)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _requested(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
