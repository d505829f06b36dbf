"""What counts as a freeze: the rule of W3C webrtc-stats (`freezeCount`) and libwebrtc.

libwebrtc M150 `video/video_quality_observer2.cc`: a frame that is shown much later than its
predecessors were ends a freeze, and the whole delay is the freeze. Delays are differences of the
times at which frames are shown; those across a pause of the stream neither count nor enter the
average. libwebrtc works in whole milliseconds, we in microseconds.
"""

from __future__ import annotations

from bwe_env.sim._jit import kernel

#: How many delays the average is over, the present one included.
#: kAvgInterframeDelaysWindowSizeFrames.
FREEZE_WINDOW = 30

#: No verdict before so many delays are known. kMinFrameSamplesToDetectFreeze.
MIN_FREEZE_SAMPLES = 5

#: How far above the average a freeze is at least. kMinIncreaseForFreezeMs.
MIN_FREEZE_EXTRA_US = 150_000

#: ... and how many times the average. W3C webrtc-stats, definition of `freezeCount`.
MIN_FREEZE_FACTOR = 3


@kernel
def is_freeze(delay_us: int, sum_last_delays_us: int, num_delays: int) -> bool:
    """Whether a frame shown `delay_us` after its predecessor ends a freeze.

    Args:
        delay_us: the present inter-frame delay.
        sum_last_delays_us: sum of the last `num_delays` delays, the present one among them.
        num_delays: how many those are, at most `FREEZE_WINDOW`.
    """
    if num_delays < MIN_FREEZE_SAMPLES:
        return False
    average_us = sum_last_delays_us // num_delays
    return bool(
        delay_us >= MIN_FREEZE_FACTOR * average_us and delay_us >= average_us + MIN_FREEZE_EXTRA_US
    )
