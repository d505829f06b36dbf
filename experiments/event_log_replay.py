"""Our controller on what a real client logged: packets sent, reports, losses, round-trip times.

`GoogCc` is told all that an RTC event log holds, from the first packet to the last. Its detector
runs on its own. Where it says something else than the logged one, or a probe has measured something
else, the estimate goes on from the logged one (`follow_log`): else one early back-off would hide
how well all the others agree.

What the log does not hold: fractions of a millisecond, whether a packet was handed to the socket in
the millisecond in which it was logged or in the next, the phase of the 25 ms timer, and which
packets belong to which probe cluster (`probe_clusters_of` finds them).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.gcc import GoogCc
from bwe_env.gcc.aimd_rate_control import aimd_update
from bwe_env.gcc.goog_cc import PROCESS_INTERVAL_US
from bwe_env.gcc.probe_bitrate_estimator import probe_result_bps
from bwe_env.gcc.send_side import send_side_set_delay_based
from bwe_env.gcc.trendline import NORMAL, OVERUSING, UNDERUSING
from bwe_env.logs import RtcEventLog
from bwe_env.logs.reports import Report, reports_of
from bwe_env.logs.rtc_event_log import (
    DETECTOR_NORMAL,
    DETECTOR_OVERUSING,
    DETECTOR_UNDERUSING,
    ProbeClusterCreated,
    RtpPackets,
)
from bwe_env.sim._jit import NEVER
from bwe_env.units import US_PER_MS, US_PER_S
from experiments.recorded_client import (
    GCC_PARAMETERS,
    MIN_RATE_BPS,
    OVERHEAD_BYTES,
    START_RATE_BPS,
)

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


def _in_milliseconds(arrivals_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Arrivals as libwebrtc's transport_feedback_adapter.cc rounds them."""
    return np.where(arrivals_us == NEVER, NEVER, arrivals_us - arrivals_us % US_PER_MS)


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
        parameters=GCC_PARAMETERS,
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
        rate_bps = int(probe_result_bps(row, controller.parameter_record)) if is_there else -1
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
    gcc, p = controller.state, controller.parameter_record
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
    if not packets.has_transport_seq.any() or not len(delay) or not reports_of(log):
        raise ConfigError(
            "the event log holds no packets with transport-wide numbers, no feedback on them, or "
            "no delay-based updates: there is nothing to replay."
        )
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
            controller.on_feedback(event.first_seq, _in_milliseconds(event.arrivals_us), now_us)
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
