"""The record of one controller, composed of its boxes."""

from __future__ import annotations

from bwe_env.gcc.aimd_rate_control import AIMD
from bwe_env.gcc.alr_detector import ALR_DETECTOR
from bwe_env.gcc.bitrate_estimator import BITRATE_ESTIMATOR
from bwe_env.gcc.congestion_window import CONGESTION_WINDOW
from bwe_env.gcc.delay_based import DELAY_BASED_BWE
from bwe_env.gcc.inter_arrival import INTER_ARRIVAL
from bwe_env.gcc.loss_based_classic import LOSS_BASED_CLASSIC
from bwe_env.gcc.loss_based_v2 import LOSS_BASED_V2
from bwe_env.gcc.probe_bitrate_estimator import PROBE_ESTIMATOR
from bwe_env.gcc.probe_controller import MAX_REQUESTED_CLUSTERS, PROBE_CLUSTER, PROBE_CONTROLLER
from bwe_env.gcc.robust_throughput import THROUGHPUT
from bwe_env.gcc.send_side import SEND_SIDE
from bwe_env.gcc.trendline import TRENDLINE
from bwe_env.sim._jit import record

GCC = record(
    [
        # What the sender obeys.
        ("target_rate_bps", "i8"),
        ("pacing_rate_bps", "i8"),
        ("padding_rate_bps", "i8"),
        ("cwnd_bytes", "i8"),  # 0 for no window yet
        ("cwnd_reduce_ratio", "f8"),  # share of the target the encoder should drop frames for
        ("num_probes", "i8"),  # clusters requested and not yet taken; who takes them sets 0
        ("probes", PROBE_CLUSTER, (MAX_REQUESTED_CLUSTERS,)),
        # As of the last publication (MaybeTriggerOnNetworkChanged).
        ("published_bps", "i8"),  # target before pushback
        ("published_pushback_bps", "i8"),  # the same after it
        ("published_rtt_us", "i8"),  # -1 before the first
        ("published_loss_q8", "i8"),
        ("published_loss_state", "i8"),
        # What the streams ask for.
        ("pacing_factor", "f8"),
        ("min_total_allocated_bps", "i8"),
        ("max_padding_rate_bps", "i8"),
        # Between reports.
        ("acked_rate_bps", "i8"),  # of the last report, NO_RATE while unknown
        ("has_sent", "i1"),  # a first packet
        ("was_in_alr", "i1"),  # at the last report
        # The boxes.
        ("alr", ALR_DETECTOR),
        ("inter_arrival", INTER_ARRIVAL),
        ("delay", DELAY_BASED_BWE),
        ("trendline", TRENDLINE),
        ("aimd", AIMD),
        ("send_side", SEND_SIDE),
        ("window", CONGESTION_WINDOW),
        ("loss_based", LOSS_BASED_V2),
        ("loss_classic", LOSS_BASED_CLASSIC),
        ("probe", PROBE_CONTROLLER),
        ("probe_estimator", PROBE_ESTIMATOR),
        ("bitrate", BITRATE_ESTIMATOR),
        ("throughput", THROUGHPUT),
    ]
)
