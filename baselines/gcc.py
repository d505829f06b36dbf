"""Google Congestion Control in the compiled loop: libwebrtc's settings, and variants of them."""

from __future__ import annotations

from bwe_env.gcc import GccParameters

#: GCC's parameters by the name of the baseline.
PRESETS: dict[str, GccParameters] = {
    # libwebrtc M150 as Chromium runs it for a camera call.
    "gcc": GccParameters(),
    # The loss-based controller before version 2: 2 % and 10 % rules of RTCP receiver reports.
    "gcc-classic-loss": GccParameters(loss_estimator="classic"),
    # The acknowledged rate before the robust throughput estimator.
    "gcc-classic-rate": GccParameters(acked_rate_estimator="classic"),
    # Probing while application limited, as a screen share asks for it.
    "gcc-alr-probing": GccParameters(alr_probing=True),
}
