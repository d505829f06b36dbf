"""Google Congestion Control in the compiled loop: libwebrtc's settings, and variants of them."""

from __future__ import annotations

from bwe_env.gcc import GccParameters

#: GCC's parameters by the name of the baseline.
PRESETS: dict[str, GccParameters] = {
    # libwebrtc M150 as Chromium runs it for a camera call.
    "gcc": GccParameters(),
    # Tuned offline on synthetic training networks by python -m experiments.tune (for WiFi: of its
    # six configurations the one with the highest mean call score over validation networks of all
    # types, +0.27 [+0.23, +0.31] MOS above the default), as far as it concerns GCC.
    "gcc-tuned": GccParameters(
        bandwidth_bias=0.0006806,
        cwnd_queue_s=0.06004,
        decrease_extra_bps=563,
        decrease_factor=0.8941,
        detector_delay_s=0.382,
        drop_probe_scale=0.8182,
        further_probe_scale=1.966,
        increase_factor_per_s=1.247,
        increase_limit_factor=1.417,
        instant_bound_loss_offset=0.04924,
        link_capacity_deviations=2.005,
        min_additive_increase_bps_per_s=127200,
        overuse_time_ms=8.201,
        pacing_factor=1.293,
        threshold_gain_up=0.009394,
        trendline_gain=3.34,
    ),
    # The pacing and the short congestion window that trained policies are played with
    # (experiments.train): what of their gain comes from there.
    "gcc-short-window": GccParameters(pacing_factor=2.5, cwnd_queue_s=0.03),
    # The loss-based controller before version 2: 2 % and 10 % rules of RTCP receiver reports.
    "gcc-classic-loss": GccParameters(loss_estimator="classic"),
    # The acknowledged rate before the robust throughput estimator.
    "gcc-classic-rate": GccParameters(acked_rate_estimator="classic"),
    # Probing while application limited, as a screen share asks for it.
    "gcc-alr-probing": GccParameters(alr_probing=True),
}
