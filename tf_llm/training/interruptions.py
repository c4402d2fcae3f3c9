"""Being asked to stop: Ctrl-C, and the SIGTERM of a cluster that wants its machine back.

Neither may hit in the midst of a step, when half of the weights have moved, or of a checkpoint. So a signal is only
noted, and the training loop looks at the note between two steps, or between two calls of several steps.
"""

import logging
import os
import signal
import threading

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptions:
    """A `with` block in which SIGINT and SIGTERM are noted. Elsewhere than in the main thread it changes nothing.

    Further SIGTERMs change nothing; a second Ctrl-C is a KeyboardInterrupt at once, for who does not want to wait.

    Attributes:
        received: the first signal, or None.

    >>> with Interruptions() as interruptions:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print(interruptions.received.name)
    SIGTERM
    """

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)

    def end(self):
        """Ends the run as the signal asks: KeyboardInterrupt, or exit status 75 (EX_TEMPFAIL: try again).

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(getattr(os, "EX_TEMPFAIL", 75))
