"""The audio receiver: an adaptive jitter buffer that conceals, after libwebrtc's NetEq.

Packets carry one frame each and are numbered by the microphone's clock. Every 10 ms the output asks
for sound: it gets the frame that is due, or concealment. What decides is in three rules
(modules/audio_coding/neteq/decision_logic.cc and delay_manager.cc, libwebrtc M150):

- *Target delay.* How much later than the fastest packet of the last 2 s a packet is, is its
  relative delay. The largest of every 500 ms enters a histogram that forgets; the target is the
  upper end of the bucket that holds its 0.95 quantile. Packets that come after newer ones have a
  histogram of their own, in which all others count as not late: of its buckets the one where the
  wait beyond that target and what is lost without it cost least, if that is more.
- *Time stretching.* A frame that would be played below the target is lengthened, one that is late
  by more than the target, the spread of the last 2 s and 20 ms is shortened.
- *Concealment.* A frame that is late is waited for, and then everything is played later by as much.
  One that is jumped over, because later ones are there, is concealed for its own length. After a
  long concealment sound resumes only with half of the target in the buffer.

A packet may repeat frames before its own (RED, RFC 2198; `bwe_env.sim.red`). A copy of a frame
that has not come fills its place and is played as the frame would have been; the frame's own
packet, if it is only late, takes the place over (packet_buffer.cc). The first copy of a frame that
has not come counts towards the target delay as a reordered packet does, so that the buffer learns
to wait for copies: neteq_impl.cc tells the packet arrival history of every frame in a RED packet,
and that takes each frame once. Copies that nobody needs or that come too late count as nothing
else; libwebrtc has them among packetsDiscarded.

Nothing here needs a timer: what was played is worked out when the next packet arrives and at the
end of every interval, and does not depend on when it is asked for.

Where we leave libwebrtc: the decoder is not simulated, so a stretch has one length and always
succeeds, and concealment merges into speech without overlap; there is no comfort noise (no DTX), no
delay added for lip sync, no in-band FEC; the receiver's clock does not drift.
"""

from __future__ import annotations

from bwe_env.sim._jit import NEVER, Record, kernel, record

#: The output asks for so much sound at a time. NetEq kOutputSizeMs.
OUTPUT_US = 10_000
#: Frames the buffer holds; one more empties it (`jitter_buffer_max_packets`, audio receive stream).
MAX_BUFFERED_FRAMES = 200
#: Arrivals kept, a power of two: what the buffer holds, and 2 s of frames of 10 ms.
ARRIVAL_ROWS = 256
_MASK = ARRIVAL_ROWS - 1
#: Relative delays are over the fastest packet of so much speech. kPacketHistorySizeMs.
HISTORY_US = 2_000_000

# The histogram of relative delays: modules/audio_coding/neteq/delay_manager.h, histogram.cc.
NUM_BUCKETS = 100
BUCKET_US = 20_000
QUANTILE = 0.95
FORGET_FACTOR = 0.983
START_FORGET_WEIGHT = 2.0
RESAMPLE_INTERVAL_US = 500_000
#: Of the histogram of reordered packets (delay_manager.h).
REORDER_FORGET_FACTOR = 0.9993
#: One percent of lost packets is worth a wait of 20 ms (the same file, ms_per_loss_percent).
LOSS_COST_US = 100 * 20_000
#: Target until the first 500 ms are over. kStartDelayMs.
START_DELAY_US = 80_000

#: What one stretch adds or takes: a pitch period of 2.5 to 15 ms in NetEq; 3 to 15 ms, 10 on
#: average, in recorded calls. Ours.
STRETCH_US = 10_000
#: Least time between two stretches: kMinTimescaleInterval outputs after the one that stretched.
STRETCH_INTERVAL_US = 60_000
#: Granularity of stretching above the target. kDelayAdjustmentGranularityMs.
STRETCH_MARGIN_US = 20_000
#: Beyond so many times the upper limit every frame is shortened (kFastAccelerate).
FAST_FACTOR = 4
#: A buffer this far above the target does not wait for a missing frame. kTargetLevelWindowMs / 2.
JUMP_MARGIN_US = 50_000

# Concealment fades: by 5 % in 6.25 ms from its third output on, by 10 % from its seventh on
# (modules/audio_coding/neteq/expand.cc).
#: Below half of the level after: sound then resumes only with half of the target in the buffer.
HALF_MUTED_US = 90_000
#: Nothing but background noise after.
SILENT_US = 120_000

#: A concealment as long as this is an interruption. kInterruptionLenMs, statistics_calculator.cc.
INTERRUPTION_US = 150_000
#: One longer than this loses words. Ours.
LONG_INTERRUPTION_US = 500_000

AUDIO = record(
    [
        ("frame_us", "i8"),  # of sound in a packet
        ("newest_number", "i8"),  # frame that arrived last, -1 before the first
        ("next_number", "i8"),  # frame that is due
        ("first_number", "i8"),  # oldest frame in the buffer, -1 for none
        ("next_play_us", "i8"),  # when the output asks next; NEVER before the first packet
        ("run_us", "i8"),  # length of the present concealment, 0 while frames are played
        ("stretch_from_us", "i8"),  # no stretch earlier
        ("arrival_us", "i8", (ARRIVAL_ROWS,)),  # of the newest frames, a ring; NEVER: missing
        ("fast_numbers", "i8", (ARRIVAL_ROWS,)),  # each faster than all before it in the history
        ("fast_head", "i8"),
        ("fast_tail", "i8"),
        ("slow_numbers", "i8", (ARRIVAL_ROWS,)),  # each slower than all after it
        ("slow_head", "i8"),
        ("slow_tail", "i8"),
        ("interval_start_us", "i8"),  # of the relative delays below; -1 before the second packet
        ("interval_delay_us", "i8"),  # the largest
        ("histogram", "f8", (NUM_BUCKETS,)),
        ("histogram_adds", "i8"),
        ("forget_factor", "f8"),
        ("underrun_target_us", "i8"),
        ("has_reordered", "i8"),  # 1: some packet came after a newer one
        ("reorder_histogram", "f8", (NUM_BUCKETS,)),  # all in the first bucket until then
        ("reorder_adds", "i8"),
        ("reorder_target_us", "i8"),
        ("target_us", "i8"),  # the larger of the two
        # What was heard, from the first decoded frame on
        ("played_us", "i8"),  # W3C totalSamplesReceived, as time
        ("concealed_us", "i8"),  # concealedSamples
        ("silent_us", "i8"),  # silentConcealedSamples
        ("concealments", "i8"),  # concealmentEvents
        ("interruptions", "i8"),  # concealments of 150 ms or more
        ("interrupted_us", "i8"),  # in those
        ("long_interrupted_us", "i8"),  # in those of more than 500 ms
        ("inserted_us", "i8"),  # insertedSamplesForDeceleration
        ("removed_us", "i8"),  # removedSamplesForAcceleration
        ("played_frames", "i8"),  # jitterBufferEmittedCount
        ("delay_sum_us", "i8"),  # jitterBufferDelay
        ("target_sum_us", "i8"),  # jitterBufferMinimumDelay
        ("late_packets", "i8"),  # packetsDiscarded: their time had passed
        ("flushed_frames", "i8"),  # thrown away with a full buffer
        ("recovered_frames", "i8"),  # played from a copy in a later packet
        ("is_copy", "i1", (ARRIVAL_ROWS,)),  # 1: what `arrival_us` tells of came in a later packet
    ]
)


@kernel
def audio_reset(audio: Record, frame_us: int) -> None:
    """Nothing has arrived, and nothing is played before something has."""
    audio.frame_us = frame_us
    audio.newest_number = -1
    audio.next_number = 0
    audio.first_number = -1
    audio.next_play_us = NEVER
    audio.run_us = 0
    audio.stretch_from_us = 0
    audio.fast_head = 0
    audio.fast_tail = 0
    audio.slow_head = 0
    audio.slow_tail = 0
    audio.interval_start_us = -1
    audio.interval_delay_us = 0
    for bucket in range(NUM_BUCKETS):
        audio.histogram[bucket] = 0.0
    audio.histogram_adds = 0
    audio.forget_factor = 0.0
    audio.underrun_target_us = START_DELAY_US
    audio.has_reordered = 0
    audio.reorder_adds = 0
    audio.reorder_target_us = 0
    audio.target_us = START_DELAY_US
    audio.played_us = 0
    audio.concealed_us = 0
    audio.silent_us = 0
    audio.concealments = 0
    audio.interruptions = 0
    audio.interrupted_us = 0
    audio.long_interrupted_us = 0
    audio.inserted_us = 0
    audio.removed_us = 0
    audio.played_frames = 0
    audio.delay_sum_us = 0
    audio.target_sum_us = 0
    audio.late_packets = 0
    audio.flushed_frames = 0
    audio.recovered_frames = 0


# --- Target delay ---------------------------------------------------------------------------------


@kernel
def _transit_us(audio: Record, number: int) -> int:
    """Time from the microphone to the receiver of a frame in the history."""
    return int(audio.arrival_us[number & _MASK] - number * audio.frame_us)


@kernel
def _note_transit(audio: Record, number: int) -> None:
    """Let a frame enter the history: two queues keep its fastest and its slowest one in front."""
    transit_us = _transit_us(audio, number)
    fast, slow = audio.fast_numbers, audio.slow_numbers
    while audio.fast_tail > audio.fast_head and (
        _transit_us(audio, fast[(audio.fast_tail - 1) & _MASK]) >= transit_us
    ):
        audio.fast_tail -= 1
    fast[audio.fast_tail & _MASK] = number
    audio.fast_tail += 1
    while audio.slow_tail > audio.slow_head and (
        _transit_us(audio, slow[(audio.slow_tail - 1) & _MASK]) <= transit_us
    ):
        audio.slow_tail -= 1
    slow[audio.slow_tail & _MASK] = number
    audio.slow_tail += 1


@kernel
def _forget_transits(audio: Record, oldest_number: int) -> None:
    """Frames before `oldest_number` leave the history."""
    while audio.fast_tail > audio.fast_head and (
        audio.fast_numbers[audio.fast_head & _MASK] < oldest_number
    ):
        audio.fast_head += 1
    while audio.slow_tail > audio.slow_head and (
        audio.slow_numbers[audio.slow_head & _MASK] < oldest_number
    ):
        audio.slow_head += 1


@kernel
def _least_transit_us(audio: Record) -> int:
    return _transit_us(audio, audio.fast_numbers[audio.fast_head & _MASK])


@kernel
def _greatest_transit_us(audio: Record) -> int:
    return _transit_us(audio, audio.slow_numbers[audio.slow_head & _MASK])


@kernel
def _add_to_histogram(audio: Record, delay_us: int) -> None:
    """Count a relative delay and set the target against it anew."""
    histogram = audio.histogram
    bucket = delay_us // BUCKET_US
    if bucket < NUM_BUCKETS:
        keep = audio.forget_factor
        for index in range(NUM_BUCKETS):
            histogram[index] *= keep
        histogram[bucket] += 1.0 - keep
        audio.histogram_adds += 1
        keep = 1.0 - START_FORGET_WEIGHT / (audio.histogram_adds + 1)
        audio.forget_factor = max(0.0, min(FORGET_FACTOR, keep))
    if audio.histogram_adds == 0:
        return
    above = 1.0 - histogram[0]
    index = 0
    while above > 1.0 - QUANTILE and index < NUM_BUCKETS - 1:
        index += 1
        above -= histogram[index]
    audio.underrun_target_us = (index + 1) * BUCKET_US


@kernel
def _set_reorder_target(audio: Record) -> None:
    """The upper end of the bucket that costs least: in waiting, and in packets that come later.

    As modules/audio_coding/neteq/reorder_optimizer.cc does.
    """
    above = 1.0
    least = 0.0
    for bucket in range(NUM_BUCKETS):
        above -= audio.reorder_histogram[bucket]
        wait_us = max(0, bucket * BUCKET_US - audio.underrun_target_us)
        cost = wait_us + LOSS_COST_US * above
        if bucket == 0 or cost < least:
            least = cost
            audio.reorder_target_us = (bucket + 1) * BUCKET_US


@kernel
def _count_order(audio: Record, is_reordered: bool, delay_us: int) -> None:
    """Count a packet towards the target against reordering, and set what follows from both."""
    histogram = audio.reorder_histogram
    if is_reordered and audio.has_reordered == 0:
        audio.has_reordered = 1
        for index in range(NUM_BUCKETS):
            histogram[index] = 0.0
        histogram[0] = 1.0
    if audio.has_reordered == 0:
        audio.reorder_adds += 1
    else:
        bucket = delay_us // BUCKET_US if is_reordered else 0
        if bucket < NUM_BUCKETS:
            keep = 1.0 - START_FORGET_WEIGHT / (audio.reorder_adds + 1)
            keep = max(0.0, min(REORDER_FORGET_FACTOR, keep))
            for index in range(NUM_BUCKETS):
                histogram[index] *= keep
            histogram[bucket] += 1.0 - keep
            audio.reorder_adds += 1
        _set_reorder_target(audio)
    audio.target_us = max(audio.underrun_target_us, audio.reorder_target_us)


@kernel
def _note_delay(audio: Record, number: int, now_us: int) -> None:
    """The relative delay of a frame that has just arrived."""
    if audio.interval_start_us < 0:
        audio.interval_start_us = now_us
    elif now_us - audio.interval_start_us > RESAMPLE_INTERVAL_US:
        _add_to_histogram(audio, audio.interval_delay_us)
        audio.interval_start_us = now_us
        audio.interval_delay_us = 0
    delay_us = _transit_us(audio, number) - _least_transit_us(audio)
    audio.interval_delay_us = max(audio.interval_delay_us, delay_us)


# --- Playout --------------------------------------------------------------------------------------


@kernel
def _conceal(audio: Record) -> None:
    """One output without a frame."""
    if audio.run_us == 0:
        audio.concealments += 1
    if audio.run_us >= SILENT_US:
        audio.silent_us += OUTPUT_US
    audio.run_us += OUTPUT_US
    audio.concealed_us += OUTPUT_US
    audio.played_us += OUTPUT_US
    audio.next_play_us += OUTPUT_US
    if audio.run_us == INTERRUPTION_US:
        audio.interruptions += 1
        audio.interrupted_us += audio.run_us
    elif audio.run_us > INTERRUPTION_US:
        audio.interrupted_us += OUTPUT_US
    if audio.run_us == LONG_INTERRUPTION_US + OUTPUT_US:
        audio.long_interrupted_us += audio.run_us
    elif audio.run_us > LONG_INTERRUPTION_US:
        audio.long_interrupted_us += OUTPUT_US


@kernel
def _waits(audio: Record) -> bool:
    """Whether the output gets no frame now, although the buffer holds one."""
    now_us = audio.next_play_us
    first = audio.first_number
    newest = audio.newest_number
    held_us = (newest - first) * audio.frame_us + now_us - audio.arrival_us[newest & _MASK]
    if audio.run_us >= HALF_MUTED_US and 2 * held_us < audio.target_us:
        return True
    if first == audio.next_number:
        return False
    if audio.run_us == 0:
        return True
    is_early = (first - audio.next_number) * audio.frame_us > audio.run_us
    return bool(is_early and held_us <= audio.target_us + JUMP_MARGIN_US)


@kernel
def _stretch_us(audio: Record) -> int:
    """By how much the frame that is played now is lengthened; negative if shortened."""
    now_us = audio.next_play_us
    length_us = min(STRETCH_US, audio.frame_us // 2)
    least_us = _least_transit_us(audio)
    delay_us = now_us - audio.first_number * audio.frame_us - least_us
    high_us = audio.target_us + _greatest_transit_us(audio) - least_us + STRETCH_MARGIN_US
    if delay_us >= FAST_FACTOR * high_us:
        return int(-length_us)
    if now_us < audio.stretch_from_us:
        return 0
    if delay_us >= high_us:
        return int(-length_us)
    if delay_us < audio.target_us:
        return int(length_us)
    return 0


@kernel
def _play(audio: Record) -> None:
    """The output gets the oldest frame of the buffer."""
    now_us = audio.next_play_us
    number = audio.first_number
    stretch_us = 0
    if audio.run_us == 0:
        stretch_us = _stretch_us(audio)
    if stretch_us != 0:
        audio.stretch_from_us = now_us + STRETCH_INTERVAL_US
        audio.inserted_us += max(0, stretch_us)
        audio.removed_us += max(0, -stretch_us)
    audio.run_us = 0
    audio.played_frames += 1
    audio.recovered_frames += audio.is_copy[number & _MASK]
    audio.delay_sum_us += now_us - audio.arrival_us[number & _MASK]
    audio.target_sum_us += audio.target_us
    audio.played_us += audio.frame_us + stretch_us
    audio.next_play_us = now_us + audio.frame_us + stretch_us
    audio.next_number = number + 1
    first = number + 1
    while first <= audio.newest_number and audio.arrival_us[first & _MASK] == NEVER:
        first += 1
    audio.first_number = first if first <= audio.newest_number else -1


@kernel
def audio_play_until(audio: Record, now_us: int) -> None:
    """Give the output all it asked for before `now_us`."""
    while audio.next_play_us < now_us:
        if audio.first_number < 0 or _waits(audio):
            _conceal(audio)
        else:
            _play(audio)


@kernel
def _add_newest(audio: Record, number: int, now_us: int) -> None:
    """A frame that is newer than all before it arrives, in its own packet."""
    newest = audio.newest_number
    for missing in range(max(newest + 1, number - _MASK), number):
        audio.arrival_us[missing & _MASK] = NEVER
    first = audio.first_number
    if newest < 0 or (first >= 0 and number - first >= MAX_BUFFERED_FRAMES):
        # The first packet of all; or the buffer is full, and starts again with this one.
        for flushed in range(first, newest + 1):
            if first >= 0 and audio.arrival_us[flushed & _MASK] != NEVER:
                audio.flushed_frames += 1
        audio.next_number = number
        audio.first_number = number
    elif first < 0:
        audio.first_number = number
    audio.newest_number = number
    # Before the row of this frame is written: it may be that of one that leaves the history.
    _forget_transits(audio, number - HISTORY_US // audio.frame_us + 1)
    audio.arrival_us[number & _MASK] = now_us
    audio.is_copy[number & _MASK] = 0
    _note_transit(audio, number)
    if newest < 0:
        audio.next_play_us = -(-now_us // OUTPUT_US) * OUTPUT_US
    else:
        _note_delay(audio, number, now_us)
        _count_order(audio, False, 0)


@kernel
def _add_older(audio: Record, number: int, is_copy: bool, now_us: int) -> None:
    """A frame before the newest arrives: reordered, or as a copy in a later packet."""
    row = number & _MASK
    age_frames = audio.newest_number - number
    is_recent = age_frames < MAX_BUFFERED_FRAMES
    has_come = is_recent and audio.arrival_us[row] != NEVER
    if is_copy and (has_come or not is_recent):
        return
    is_late = number < audio.next_number or not is_recent
    if not is_late and (audio.first_number < 0 or number < audio.first_number):
        audio.first_number = number
    if is_late and not is_copy:
        audio.late_packets += 1
    if is_recent:  # what has come too late is noted for `has_come` alone
        audio.arrival_us[row] = now_us
        audio.is_copy[row] = is_copy
    if not has_come and age_frames < HISTORY_US // audio.frame_us:
        delay_us = now_us - number * audio.frame_us - _least_transit_us(audio)
        _count_order(audio, True, delay_us)


@kernel
def audio_on_packet(audio: Record, number: int, now_us: int, copies: int = 0) -> None:
    """Frame `number` arrives; an output at exactly this time will find it there.

    Args:
        copies: how many frames before it the packet repeats.
    """
    audio_play_until(audio, now_us)
    if number > audio.newest_number:
        _add_newest(audio, number, now_us)
    else:
        _add_older(audio, number, False, now_us)
    for copy in range(number - 1, number - 1 - copies, -1):
        _add_older(audio, copy, True, now_us)
