"""What keeps one bad batch from ruining a run: a limit to the loss, and an end to a run that no longer learns."""

import collections
import logging
import math
import statistics

from tf_llm.contracts import UserError

logger = logging.getLogger(__name__)
LATEST, ENOUGH = 50, 10  # losses that the limit comes from, at most and at least


class DivergenceError(UserError):
    """One step after the other was unsound. A script that starts a run may tell it by the exit status, 4."""

    exit_status = 4


class Guard:
    """Follows the losses of a run, and says which are too high to learn from.

    Args:
        spike_factor: how many times the median of the latest losses a loss may be; 0 lets every finite one pass.
        unsound_steps: how many steps in a row may be passed over before the run ends.
        latest: the losses of the steps before these, of a run that goes on.

    Attributes:
        skipped: steps that were passed over, in all.
        latest: the losses that the limit comes from.

    >>> guard = Guard(spike_factor=3.0, unsound_steps=2)
    >>> for step in range(20):
    ...     guard.judge(step, loss=5.0, applied=True)
    >>> guard.limit
    15.0
    """

    def __init__(self, spike_factor, unsound_steps, latest=()):
        self.spike_factor, self.unsound_steps = spike_factor, unsound_steps
        self.skipped, self._in_a_row = 0, 0
        self.latest = collections.deque(latest, maxlen=LATEST)

    @property
    def limit(self):
        """The loss above which the next step is to be passed over."""
        if not self.spike_factor or len(self.latest) < ENOUGH:
            return math.inf
        return self.spike_factor * statistics.median(self.latest)

    def judge(self, step, loss, applied, overflowed=False):
        """Takes note of a step that was applied, or passed over.

        Where it `overflowed`, the range of float16 is to blame and a smaller loss scale mends it: that is no sign of
        a run that diverges, and is not counted among those in a row.

        Raises:
            DivergenceError: it is the last of too many that were passed over in a row.
        """
        if applied:
            self.latest.append(loss)
            self._in_a_row = 0
            return
        self.skipped += 1
        if overflowed:
            logger.info("step %d: gradients overflowed in float16. Its update is left out, the loss scale halved", step)
            return
        self._in_a_row += 1
        reason = f"a loss of at most {self.limit:.3g}" if math.isfinite(loss) else "a finite loss"
        reason = "finite gradients" if math.isfinite(loss) and loss <= self.limit else reason
        logger.warning("step %d: expected %s. Received: loss %.3g. Its update is left out", step, reason, loss)
        if self._in_a_row >= self.unsound_steps:
            raise DivergenceError(
                f"expected a finite loss, and none of {self.spike_factor:g} times the latest. Received: the opposite "
                f"{self._in_a_row} times in a row, up to step {step} with a loss of {loss:.3g}. Lower the learning "
                "rate or set clip_norm"
            )
