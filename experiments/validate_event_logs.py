"""Recorded calls through our controller: ``python -m experiments.validate event-logs DIRECTORY``.

An RTC event log holds what a real client's GCC was told (packets sent, transport-wide feedback,
receiver reports) and what it made of it (detector state, estimates, probe results). Here `GoogCc`
is told the same from the first packet to the last, and compared after every feedback report. Its
detector runs on its own. Where it says something else than the logged one, or a probe has measured
something else, that counts once, and the estimate goes on from the logged one (`follow_log`): else
one early back-off would hide how well all the others agree.

What the log does not hold: fractions of a millisecond, whether a packet was handed to the socket in
the millisecond in which it was logged or in the next, the phase of the 25 ms timer, and which
packets belong to which probe cluster (`probe_clusters_of` finds them). `ALLOWED` says what that
may explain.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters, GoogCc
from bwe_env.gcc.aimd_rate_control import aimd_update
from bwe_env.gcc.goog_cc import PROCESS_INTERVAL_US
from bwe_env.gcc.probe_bitrate_estimator import probe_result_bps
from bwe_env.gcc.send_side import send_side_set_delay_based
from bwe_env.gcc.trendline import NORMAL, OVERUSING, UNDERUSING
from bwe_env.logs import RtcEventLog, read_rtc_event_log
from bwe_env.logs.rtc_event_log import (
    DETECTOR_NORMAL,
    DETECTOR_OVERUSING,
    DETECTOR_UNDERUSING,
    ProbeClusterCreated,
    RtpPackets,
    unwrap,
)
from bwe_env.logs.rtcp import REFERENCE_TIME_PERIOD_US, TransportFeedback
from bwe_env.sim._jit import NEVER
from bwe_env.units import US_PER_MS, US_PER_S, us_to_s

SUFFIX = ".rtceventlog.gz"

#: IPv4 and UDP headers: what the recorded client adds to an RTP packet's size. The ten bytes of
#: SRTP's authentication tag (AES_CM_128_HMAC_SHA1_80, RFC 3711), which the link carried too, it
#: leaves out: with 28 bytes, not with 0 or 38, most probe results come out exactly.
OVERHEAD_BYTES = 28
#: The recorded sender: library defaults, no maximum rate, a camera of at most 5 Mbps.
MIN_RATE_BPS, START_RATE_BPS, MAX_MEDIA_BPS = 30_000, 300_000, 5_000_000
#: What its streams ask for at least, the floor of every estimate: video 30 kbps, Opus 32 kbps, and
#: 50 audio packets a second with 28 bytes of RTP header and 28 of IP and UDP. Estimates of
#: c_loss20_2M and e_alt500_100_r2 lie on it.
MIN_ALLOCATED_BPS = 30_000 + 32_000 + 50 * 8 * (28 + 28)

#: Onsets of over-use so close together are the same one: two reports of the recorded receiver,
#: which reports every 50 to 62 ms; a millisecond may decide in which of them the trend gets there.
SAME_EVENT_US = 100_000

#: Estimates nearer than this are the same to `first_difference`: a packet in a window of a second.
SAME_ESTIMATE = 0.01

#: A sender waits so long with a cluster at most (BitrateProber, kProbeClusterTimeout).
CLUSTER_TIMEOUT_US = 5_000_000
#: Bursts of a probe are 2 ms apart or more (bitrate_prober.h, min_probe_delta); of one burst the
#: log may tell in two milliseconds.
MIN_BURST_GAP_US = 2_000
#: Largest padding of one packet (one byte of RFC 3550 counts it); a cluster begins with such one.
SMALL_PADDING_BYTES = 255

#: Logged clusters get ids far from those of our own controller, in the same rows.
LOGGED_CLUSTER = 8_000

#: What came of a report may be logged so much earlier than the report itself, which Call logs once
#: it is dealt with (call/call.cc).
LOG_ORDER_US = 2_000

STATE_OF = {NORMAL: DETECTOR_NORMAL, UNDERUSING: DETECTOR_UNDERUSING, OVERUSING: DETECTOR_OVERUSING}
USAGE_OF = {state: usage for usage, state in STATE_OF.items()}
STATE_NAME = {0: "unknown", DETECTOR_NORMAL: "normal", DETECTOR_UNDERUSING: "underusing",
              DETECTOR_OVERUSING: "overusing"}  # fmt: skip

#: What the log's resolution allows, as (measure, direction, bound); chosen beforehand:
ALLOWED: Mapping[str, tuple[str, float]] = {
    # A change of state that comes one report late differs in one report. The recordings have about
    # 30 changes per 1,000 reports.
    "state %": (">=", 95.0),
    # One onset in ten may hang on a millisecond: the trend crosses the threshold by a few percent.
    "precision %": (">=", 90.0),
    "recall %": (">=", 90.0),
    # Additive growth is 1 to 2 % of the rate per second; a back-off a report earlier or later
    # shifts the saw-tooth by 60 ms, and the rate it falls to by a packet in a window of a second.
    "delay p50 %": ("<=", 2.0),
    "delay p95 %": ("<=", 10.0),
    "back-off p50 %": ("<=", 2.0),
    # The target is the delay-based estimate or less.
    "target p50 %": ("<=", 2.0),
    # A cluster lasts 15 ms or more, one of which may be an error of the send time.
    "probe p50 %": ("<=", 1.0),
    "probe max %": ("<=", 100 / 15),
}


# --- From the log to what the controller is told --------------------------------------------------


@dataclass(frozen=True)
class Report:
    """Feedback as the controller wants it."""

    time_us: int
    first_seq: int
    """counted from 0 at the first packet of the log"""
    arrivals_us: NDArray[np.int64]
    """shape (n,), whole milliseconds as libwebrtc's transport_feedback_adapter.cc rounds them"""


@dataclass(frozen=True)
class LossReport:
    """Packets since the last receiver report of a stream."""

    time_us: int
    lost_packets: int
    received_packets: int


@dataclass(frozen=True)
class RttSample:
    """A round-trip time from a receiver report (RFC 3550 §6.4.1)."""

    time_us: int
    rtt_us: int


def reports_of(log: RtcEventLog) -> list[Report]:
    """Transport-wide feedback, numbers and times unwrapped, without packets the log lacks."""
    received: list[tuple[int, TransportFeedback]] = [
        (packet.time_us, feedback)
        for packet in log.incoming_rtcp
        for feedback in packet.content.feedback
    ]
    if not received or not log.outgoing.has_transport_seq.any():
        return []
    first_sent = int(log.outgoing.transport_seq[log.outgoing.has_transport_seq][0])
    firsts = unwrap(np.array([first_sent, *(f.first_seq for _, f in received)], np.int64))[1:]
    references_us = unwrap(
        np.array([f.reference_us for _, f in received], np.int64), REFERENCE_TIME_PERIOD_US
    )
    num_sent = int(log.outgoing.has_transport_seq.sum())
    reports = []
    for (time_us, feedback), first, reference_us in zip(
        received, (firsts - first_sent).tolist(), references_us.tolist(), strict=True
    ):
        whole_us = feedback.arrival_us - feedback.arrival_us % US_PER_MS
        arrivals_us = np.where(feedback.has_arrived, reference_us + whole_us, NEVER)
        arrivals_us = arrivals_us[max(0, -first) : max(0, num_sent - first)]
        if len(arrivals_us):
            reports.append(Report(time_us, max(first, 0), arrivals_us))
    return reports


def _compact_us(compact_ntp: int) -> int:
    return (compact_ntp * US_PER_S) >> 16


def rtts_of(log: RtcEventLog) -> list[RttSample]:
    """Time since the sender report that a receiver report answers, without its delay there."""
    sent_us = {
        report.ntp >> 16 & 0xFFFFFFFF: packet.time_us
        for packet in log.outgoing_rtcp
        for report in packet.content.sender_reports
    }
    samples = []
    for packet in log.incoming_rtcp:
        for block in packet.content.report_blocks:
            since_us = sent_us.get(block.last_sr_compact_ntp)
            if block.last_sr_compact_ntp and since_us is not None:
                delay_us = _compact_us(block.delay_since_sr_compact_ntp)
                rtt_us = max(packet.time_us - since_us - delay_us, US_PER_MS)
                samples.append(RttSample(packet.time_us, rtt_us))
    return samples


def loss_reports_of(log: RtcEventLog) -> list[LossReport]:
    """Losses per report block, as rtp_transport_controller_send.cc forms them."""
    last: dict[int, tuple[int, int]] = {}
    reports = []
    for packet in log.incoming_rtcp:
        for block in packet.content.report_blocks:
            now = (block.highest_seq, block.cumulative_lost)
            before = last.get(block.ssrc)
            last[block.ssrc] = now
            if before is None:
                continue
            expected, lost = now[0] - before[0], now[1] - before[1]
            if expected > 0 and expected - lost >= 1:
                reports.append(LossReport(packet.time_us, lost, expected - lost))
    return reports


def _is_cluster_begin(packets: RtpPackets, index: int) -> bool:
    """Padding of at most `SMALL_PADDING_BYTES`, with which the client's prober begins."""
    padding = int(packets.padding_bytes[index])
    return 0 < padding <= SMALL_PADDING_BYTES and int(packets.payload_bytes[index]) <= padding


def _cluster_end(
    packets: RtpPackets, begin: int, cluster: ProbeClusterCreated, next_us: int
) -> int:
    """Index behind the last packet of the cluster that begins at `begin`.

    Args:
        next_us: when the next cluster was asked for; small padding after it is the next's.
    """
    index, size_bytes, bursts = begin, 0, 0
    burst_us = int(packets.time_us[begin]) - MIN_BURST_GAP_US
    while index < len(packets):
        is_next = packets.time_us[index] >= next_us and _is_cluster_begin(packets, index)
        if is_next and index > begin:
            break
        if packets.time_us[index] - burst_us >= MIN_BURST_GAP_US:
            if bursts >= cluster.min_packets and size_bytes >= cluster.min_bytes:
                break
            bursts += 1
            burst_us = int(packets.time_us[index])
        size_bytes += int(packets.size_bytes[index]) + OVERHEAD_BYTES
        index += 1
    return index


def probe_clusters_of(
    packets: RtpPackets, clusters: Sequence[ProbeClusterCreated]
) -> NDArray[np.int64]:
    """Id of the logged cluster that each packet belongs to, -1 for none.

    A cluster begins with a small packet of padding and ends with the burst by which it has sent its
    bytes in enough bursts (modules/pacing/pacing_controller.cc, bitrate_prober.cc); whatever leaves
    meanwhile counts, audio too.
    """
    ids = np.full(len(packets), -1, np.int64)
    index = 0
    nexts_us = [cluster.time_us for cluster in clusters[1:]] + [NEVER]
    for cluster, next_us in zip(clusters, nexts_us, strict=False):
        index = max(index, int(np.searchsorted(packets.time_us, cluster.time_us)))
        begin = index
        while begin < len(packets) and not _is_cluster_begin(packets, begin):
            begin += 1
        if begin == len(packets) or packets.time_us[begin] > cluster.time_us + CLUSTER_TIMEOUT_US:
            continue
        index = _cluster_end(packets, begin, cluster, next_us)
        ids[begin:index] = cluster.id
    return ids


# --- Replay ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Our controller and the log after one feedback report."""

    time_us: int
    state: int
    """DETECTOR_…"""
    logged_state: int
    estimate_bps: int
    logged_estimate_bps: int
    target_bps: int
    logged_target_bps: int
    acked_bps: int
    """NO_RATE while unknown"""
    is_corrected: bool = False
    """the estimate went on from the logged one, see `follow_log`"""


@dataclass(frozen=True)
class ProbeSample:
    """A cluster's result after a report, ours and the last one logged for it then."""

    id: int
    rate_bps: int
    """NO_RATE for none"""
    logged_bps: int


@dataclass
class Replay:
    """What came of one call."""

    samples: list[Sample] = field(default_factory=list)
    probes: list[ProbeSample] = field(default_factory=list)


def _events(
    log: RtcEventLog, begin_us: int
) -> Iterator[tuple[int, int, int | Report | LossReport | RttSample]]:
    """(time, rank, event) in order; in one millisecond the timer, RTCP, then packets sent."""
    packets = log.outgoing
    sent = np.flatnonzero(packets.has_transport_seq)
    # No packet may be reported before it is sent: order of numbers, not of logged milliseconds.
    times_us = np.maximum.accumulate(packets.time_us[sent])
    events: list[tuple[int, int, int | Report | LossReport | RttSample]] = [
        (int(time_us), 5, int(index)) for time_us, index in zip(times_us, sent, strict=True)
    ]
    events += [(sample.time_us, 2, sample) for sample in rtts_of(log)]
    events += [(report.time_us, 3, report) for report in loss_reports_of(log)]
    events += [(report.time_us, 4, report) for report in reports_of(log)]
    end_us = max(event[0] for event in events)
    events += [(tick, 1, -1) for tick in range(begin_us, end_us, PROCESS_INTERVAL_US)]
    return iter(sorted(events, key=lambda event: event[:2]))


def _carried(times_us: NDArray[np.int64], values: NDArray[np.int64], before_us: int) -> int:
    """The last value logged before a time, 0 for none yet."""
    position = int(np.searchsorted(times_us, before_us)) - 1
    return int(values[position]) if position >= 0 else 0


def new_controller() -> GoogCc:
    """The recorded client's controller."""
    return GoogCc(
        parameters=GccParameters(
            min_total_allocated_bps=MIN_ALLOCATED_BPS,
            max_total_allocated_bps=MAX_MEDIA_BPS,
            knows_max_rate=False,
        ),
        min_rate_bps=MIN_RATE_BPS,
        start_rate_bps=START_RATE_BPS,
    )


def _probe_samples(
    log: RtcEventLog, controller: GoogCc, time_us: int, next_us: int
) -> list[ProbeSample]:
    """Our results for the clusters that the log tells of until the next report."""
    logged = {
        result.id: result.bitrate_bps
        for result in log.probe_results
        if time_us - LOG_ORDER_US <= result.time_us < next_us and result.bitrate_bps is not None
    }
    rows = controller.state.probe_estimator.clusters
    samples = []
    for cluster_id, logged_bps in logged.items():
        row = rows[cluster_id % len(rows)]
        is_there = int(row.id) == LOGGED_CLUSTER + cluster_id
        rate_bps = int(probe_result_bps(row, controller._p)) if is_there else -1
        samples.append(ProbeSample(cluster_id, rate_bps, logged_bps))
    return samples


def follow_log(
    controller: GoogCc, before: np.ndarray, last_logged_bps: int, sample: Sample, now_us: int
) -> bool:
    """Let the estimate do what the log says it did at this report. Returns whether that was else.

    Args:
        before: copy of our AIMD record from before the report.
        last_logged_bps: the logged estimate before the report.
    """
    logged_bps = sample.logged_estimate_bps
    is_same = logged_bps == sample.estimate_bps and sample.state == sample.logged_state
    if not logged_bps or is_same:
        return False
    gcc, p = controller.state, controller._p
    if sample.state != sample.logged_state:
        gcc["aimd"] = before
        # While over-using, the estimate may fall only so often; the log tells when it did.
        if sample.logged_state != DETECTOR_OVERUSING or logged_bps < last_logged_bps:
            usage = USAGE_OF[sample.logged_state]
            aimd_update(gcc.aimd, p, usage, sample.acked_bps, bool(gcc.alr.in_alr), now_us)
    gcc.aimd.rate_bps = logged_bps
    send_side_set_delay_based(gcc.send_side, logged_bps)
    return True


def replay(
    log: RtcEventLog, *, overhead_bytes: int = OVERHEAD_BYTES, follows_log: bool = True
) -> Replay:
    """Run a controller on a log.

    Args:
        follows_log: False to let the estimate run on its own too.
        overhead_bytes: added to the logged size of every RTP packet.
    """
    result = Replay()
    packets, delay, loss = log.outgoing, log.delay_based, log.loss_based
    if not len(packets) or not len(delay):
        return result
    clusters = {cluster.id: cluster for cluster in log.probe_clusters}
    cluster_ids = probe_clusters_of(packets, log.probe_clusters)
    sizes = (packets.size_bytes + overhead_bytes).tolist()
    first_us = int(packets.time_us[0])
    begin_us = min([first_us] + [cluster.time_us for cluster in log.probe_clusters])
    report_times_us = np.array([report.time_us for report in reports_of(log)], np.int64)
    controller = new_controller()
    controller.on_network_availability(True, 0)
    for time_us, _, event in _events(log, begin_us):
        now_us = time_us - begin_us
        if isinstance(event, Report):
            before = controller.state.aimd.copy()
            last_logged_bps = result.samples[-1].logged_estimate_bps if result.samples else 0
            controller.on_feedback(event.first_seq, event.arrivals_us, now_us)
            position = int(np.searchsorted(report_times_us, time_us, side="right"))
            is_last = position == len(report_times_us)
            next_us = NEVER if is_last else int(report_times_us[position]) - LOG_ORDER_US
            gcc = controller.state
            sample = Sample(
                time_us=time_us,
                state=STATE_OF[int(gcc.trendline.state)],
                logged_state=_carried(delay.time_us, delay.detector_state, next_us),
                estimate_bps=int(gcc.aimd.rate_bps),
                logged_estimate_bps=_carried(delay.time_us, delay.bitrate_bps, next_us),
                target_bps=int(gcc.send_side.target_rate_bps),
                logged_target_bps=_carried(loss.time_us, loss.bitrate_bps, next_us),
                acked_bps=int(gcc.acked_rate_bps),
            )
            probes = _probe_samples(log, controller, time_us, next_us)
            if follows_log and (sample.state != sample.logged_state or probes):
                is_corrected = follow_log(controller, before, last_logged_bps, sample, now_us)
                sample = dataclasses.replace(sample, is_corrected=is_corrected)
            if result.samples and result.samples[-1].time_us >= time_us - LOG_ORDER_US:
                result.samples.pop()  # the log does not tell such reports apart
            result.samples.append(sample)
            result.probes += probes
        elif isinstance(event, LossReport):
            controller.on_loss_report(event.lost_packets, event.received_packets, now_us)
        elif isinstance(event, RttSample):
            controller.on_rtt(event.rtt_us, now_us)
        elif event < 0:
            controller.on_process_interval(now_us)
        else:
            cluster_id = int(cluster_ids[event])
            if cluster_id >= 0:
                cluster = clusters[cluster_id]
                controller.declare_probe_cluster(
                    LOGGED_CLUSTER + cluster_id,
                    min_packets=cluster.min_packets,
                    min_bytes=cluster.min_bytes,
                )
                cluster_id += LOGGED_CLUSTER
            controller.on_packet_sent(sizes[event], now_us, probe_cluster=cluster_id)
        controller.take_probes()  # the log's clusters are sent, not ours
    return result


# --- Comparison -----------------------------------------------------------------------------------


def match_events(
    ours_us: Sequence[int], logged_us: Sequence[int], within_us: int = SAME_EVENT_US
) -> int:
    """How many of our events have a logged one of their own at most `within_us` away.

    >>> match_events([0, 50, 900], [40, 300], within_us=100)
    1
    """
    matched = i = j = 0
    while i < len(ours_us) and j < len(logged_us):
        difference_us = ours_us[i] - logged_us[j]
        if abs(difference_us) <= within_us:
            matched, i, j = matched + 1, i + 1, j + 1
        elif difference_us < 0:
            i += 1
        else:
            j += 1
    return matched


def _onsets(times_us: NDArray[np.int64], states: NDArray[np.int64]) -> list[int]:
    """When over-use began."""
    is_over = states == DETECTOR_OVERUSING
    begins = is_over & ~np.append(False, is_over[:-1])
    return [int(time_us) for time_us in times_us[begins]]


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else np.nan


def _relative(ours: NDArray[np.int64], logged: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.abs(ours / logged - 1.0)


def _percentile(errors: NDArray[np.float64], percentile: float) -> float:
    return float(100 * np.percentile(errors, percentile)) if len(errors) else np.nan


def back_offs(result: Replay) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(estimate the client backed off to, rate that we find acknowledged then), shapes (n,).

    The acknowledged rate depends on packets and reports alone, not on what our estimate did before.
    """
    pairs = [
        (after.logged_estimate_bps, after.acked_bps)
        for before, after in zip(result.samples, result.samples[1:], strict=False)
        if after.logged_state == DETECTOR_OVERUSING
        and after.logged_estimate_bps < before.logged_estimate_bps
        and after.acked_bps > 0
    ]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def backed_off_bps(acked_bps: NDArray[np.int64], parameters: GccParameters) -> NDArray[np.int64]:
    """What over-use takes the estimate to: RcDecrease of aimd_rate_control.cc."""
    decreased_bps = parameters.decrease_factor * acked_bps
    extra_bps = np.where(decreased_bps > parameters.decrease_extra_bps,
                         parameters.decrease_extra_bps, 0)  # fmt: skip
    reached_bps = np.round(decreased_bps - extra_bps).astype(np.int64)
    return np.maximum(reached_bps, parameters.min_total_allocated_bps)


def measures(results: Sequence[Replay]) -> dict[str, float]:
    """The numbers that are compared, over all reports of the given calls; NaN where there are none.

    An estimate of 0 was not logged yet.
    """
    matched = num_ours = num_logged = 0
    for result in results:
        times_us = np.array([sample.time_us for sample in result.samples], np.int64)
        ours = np.array([sample.state for sample in result.samples], np.int64)
        logged = np.array([sample.logged_state for sample in result.samples], np.int64)
        our_onsets, logged_onsets = _onsets(times_us, ours), _onsets(times_us, logged)
        matched += match_events(our_onsets, logged_onsets)
        num_ours, num_logged = num_ours + len(our_onsets), num_logged + len(logged_onsets)
    samples = [sample for result in results for sample in result.samples]
    known = [sample for sample in samples if sample.logged_estimate_bps > 0]
    table = np.array(
        [(s.state, s.logged_state, s.estimate_bps, s.logged_estimate_bps) for s in known], np.int64
    ).reshape(-1, 4)
    targets = np.array(
        [(s.target_bps, s.logged_target_bps) for s in samples if s.logged_target_bps > 0], np.int64
    ).reshape(-1, 2)
    probes = np.array([(p.rate_bps, p.logged_bps) for result in results for p in result.probes])
    probes = probes.reshape(-1, 2)
    pairs = [back_offs(result) for result in results]
    reached = np.concatenate([pair[0] for pair in pairs] or [np.zeros(0, np.int64)])
    acked = np.concatenate([pair[1] for pair in pairs] or [np.zeros(0, np.int64)])
    delay_errors = _relative(table[:, 2], table[:, 3])
    probe_errors = _relative(probes[:, 0], probes[:, 1])
    return {
        "state %": _percent(float((table[:, 0] == table[:, 1]).sum()), len(table)),
        "precision %": _percent(matched, num_ours),
        "recall %": _percent(matched, num_logged),
        "delay p50 %": _percentile(delay_errors, 50),
        "delay p95 %": _percentile(delay_errors, 95),
        "back-off p50 %": _percentile(
            _relative(backed_off_bps(acked, new_controller().parameters), reached), 50
        ),
        "target p50 %": _percentile(_relative(targets[:, 0], targets[:, 1]), 50),
        "probe p50 %": _percentile(probe_errors, 50),
        "probe max %": _percentile(probe_errors, 100),
    }


def is_allowed(measure: str, value: float) -> bool:
    """Whether a measure is within its bound; one that a call does not have is."""
    direction, bound = ALLOWED[measure]
    return bool(np.isnan(value) or (value >= bound if direction == ">=" else value <= bound))


def first_difference(log: RtcEventLog, result: Replay) -> str:
    """The first report after which state or estimate (by 1 %) differ; empty for none."""
    for sample in result.samples:
        if not sample.logged_estimate_bps:
            continue
        at = f"{us_to_s(sample.time_us - log.begin_us):.3f} s after the log began"
        if sample.state != sample.logged_state:
            names = STATE_NAME[sample.state], STATE_NAME[sample.logged_state]
            return f"{at}: detector {names[0]} instead of {names[1]}"
        if abs(sample.estimate_bps / sample.logged_estimate_bps - 1) > SAME_ESTIMATE:
            return (
                f"{at}: estimate {sample.estimate_bps} instead of {sample.logged_estimate_bps} bps"
            )
    return ""


def _line(name: str, row: Mapping[str, float]) -> str:
    """One line of the table; a star marks what is outside of its bound."""
    cells = []
    for measure, value in row.items():
        text = "-" if np.isnan(value) else f"{value:.2f}"
        cells.append(f"{text}{' ' if is_allowed(measure, value) else '*'}".rjust(len(measure) + 2))
    return f"{name:24}" + "".join(cells)


def logs_of(directory: Path, names: Sequence[str]) -> dict[str, Path]:
    """Logs of a directory by the name of their call."""
    paths = {path.name.removesuffix(SUFFIX): path for path in sorted(directory.glob(f"*{SUFFIX}"))}
    if not paths:
        raise ConfigError(
            f"{directory} holds no NAME{SUFFIX}; give a directory of recorded event logs such as "
            "../shared/reference/chromium/eventlogs."
        )
    for name in names:
        if name not in paths:
            raise unknown_name("recorded event log", name, paths)
    return {name: paths[name] for name in names or paths}


def validate_event_logs(directory: Path, *, names: Sequence[str] = ()) -> int:
    """Replay every log and print the table; returns how many of its lines miss a bound."""
    start_s = time.perf_counter()
    paths = logs_of(directory, names)
    header = f"{'call':24}" + "".join(f"{measure:>{len(measure) + 1}} " for measure in ALLOWED)
    print(header)
    print(f"{'(bound)':24}" + "".join(
        f"{direction + format(bound, '.3g'):>{len(measure) + 1}} "
        for measure, (direction, bound) in ALLOWED.items()))  # fmt: skip
    results, misses, differences = [], 0, []
    for name, path in paths.items():
        log = read_rtc_event_log(path)
        result = replay(log)
        row = measures([result])
        print(_line(name, row), flush=True)
        results.append(result)
        missed = [measure for measure, value in row.items() if not is_allowed(measure, value)]
        misses += bool(missed)
        difference = first_difference(log, result)
        if missed:
            differences.append(f"MISS {name}: {', '.join(missed)}; first difference {difference}")
    totals = measures(results)
    print(_line("all reports", totals))
    misses += not all(is_allowed(measure, value) for measure, value in totals.items())
    for line in differences:
        print(line)
    num_reports = sum(len(result.samples) for result in results)
    print(f"{len(paths) - len(differences)} of {len(paths)} calls within every bound "
          f"({num_reports} reports) in {time.perf_counter() - start_s:.0f} s.")  # fmt: skip
    return misses
