"""The four published A/B tests of network-targeted bandwidth estimation, and how they are repeated.

Published numbers: Meta's engineering blog on machine learning for bandwidth estimation, March 2024,
relative change from hand-tuned rules to targeting with 95 % half widths. The article gives no unit;
they are taken as percent. It names its metrics, and not their formulas: ours are those of
`bwe_env.metrics.FIELD_METRICS`.

Control is libwebrtc M150's GCC. Networks are of the test split: no model, rule or plan was made
with them. They, the call and the control were settled before any was played, but for
`LOOKED_AT_NETWORKS`; docs/targeting.md says what was changed when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bwe_env.config import CallConfig
from bwe_env.errors import unknown_name
from bwe_env.labels import CELLULAR_LOW_BPS
from bwe_env.network import Network
from bwe_env.trace.catalog import networks as catalog_networks
from experiments.ab_published import Published
from experiments.collected_networks import collected_network, usable_rate_bps
from experiments.tuning_networks import class_networks, mean_capacity_bps

#: Calls last as long as the last-minute metrics need; traces of the catalog are as long.
CALL = CallConfig(duration_s=180.0)
#: What a fast network carries on average, at least. Ours, as `CELLULAR_LOW_BPS`: the article does
#: not say what "high bandwidth" is.
HIGH_BANDWIDTH_BPS = 2e6

#: Low-bandwidth networks of the test split that an earlier plan for congestion was tested on, and
#: failed (docs/targeting.md): what was made after that look is tested on those behind them.
LOOKED_AT_NETWORKS = 3000


@dataclass(frozen=True, kw_only=True)
class PublishedExperiment:
    """One published test: its rows, and the networks that stand for those it was run on."""

    name: str
    title: str
    rows: Mapping[str, Published]
    """by metric of `FIELD_METRICS`"""
    networks: Callable[[str, int], Sequence[Network]]
    """so many networks of a split; a longer list begins with the shorter one"""
    plan: str
    """name of the configuration that is delivered"""
    population: str
    """what the networks are, in words"""
    segment: str = ""
    """network class that the rows are taken from; all networks if empty"""


def _published(**rows: tuple[float, float]) -> dict[str, Published]:
    return {
        name: Published(change_pct=change, low_pct=change - half, high_pct=change + half)
        for name, (change, half) in rows.items()
    }


def low_bandwidth(split: str, count: int) -> Sequence[Network]:
    """Networks of any type whose mean capacity in the call is below `CELLULAR_LOW_BPS`.

    Of the test split those behind the first `LOOKED_AT_NETWORKS`.
    """
    skipped = LOOKED_AT_NETWORKS if split == "test" else 0
    slow = _first(
        split,
        skipped + count,
        lambda network: mean_capacity_bps(network, CALL.duration_s) < CELLULAR_LOW_BPS,
    )
    return slow[skipped:]


def high_bandwidth(split: str, count: int) -> Sequence[Network]:
    """Networks with a loss process of their own (`experiments.collected_networks`: next to none,
    independent or in bursts, up to 10 %) on which a call can use `HIGH_BANDWIDTH_BPS` or more.

    The catalog itself has random loss on satellites and hardly elsewhere.
    """
    return _first(
        split,
        count,
        lambda network: usable_rate_bps(network.trace) >= HIGH_BANDWIDTH_BPS,
        vary=collected_network,
    )


def cellular(split: str, count: int) -> Sequence[Network]:
    """Cellular networks, of low and of high bandwidth by turns."""
    each = -(-count // 2)
    pairs = zip(
        class_networks(split, "cellular-low", each, CALL.duration_s),
        class_networks(split, "cellular-high", each, CALL.duration_s),
        strict=True,
    )
    return [network for pair in pairs for network in pair][:count]


def _first(
    split: str,
    count: int,
    is_wanted: Callable[[Network], bool],
    *,
    vary: Callable[[Network], Network] = lambda network: network,
) -> list[Network]:
    """The first networks of a split that are wanted once they are varied."""
    size = 2 * count
    while True:
        found = [n for n in map(vary, catalog_networks(split, count=size)) if is_wanted(n)]
        if len(found) >= count:
            return found[:count]
        size += count


_CELLULAR = "cellular networks of the catalog, mean capacity below and above 2 Mbps by turns"

EXPERIMENTS = (
    PublishedExperiment(
        name="congestion",
        title="Congestion prediction, low bandwidth",
        rows=_published(
            connection_drop_rate=(-0.326, 0.216),
            last_minute_quality_regression_v1=(-0.422, 0.206),
            last_minute_quality_regression_v2=(-0.371, 0.196),
            bad_experience_percentage=(-0.230, 0.148),
            transport_not_ready_pct=(-0.437, 0.401),
            peer_video_freeze_percentage=(-0.749, 0.181),
            peer_video_freeze_percentage_above_500ms=(-0.439, 0.212),
        ),
        networks=low_bandwidth,
        plan="congestion",
        population="networks of all types of the catalog, mean capacity in the call below 2 Mbps",
    ),
    PublishedExperiment(
        name="random-loss",
        title="Random-loss characterisation, high bandwidth",
        rows=_published(
            peer_video_freeze_percentage=(-0.379, 0.125),
            peer_video_freeze_percentage_above_500ms=(-0.542, 0.141),
            peer_neteq_plc_cng_perc=(-0.242, 0.137),
            total_talk_time=(0.154, 0.149),
        ),
        networks=high_bandwidth,
        plan="random-loss",
        population=(
            "networks as models are trained on, with random loss of their own, usable rate of "
            "2 Mbps or more"
        ),
    ),
    PublishedExperiment(
        name="cellular-low",
        title="Cellular networks, low bandwidth",
        rows=_published(
            connection_drop_rate=(-0.196, 0.128),
            last_minute_quality_regression_v1=(-0.199, 0.125),
            last_minute_quality_regression_v2=(-0.188, 0.138),
            peer_neteq_plc_cng_perc=(-0.360, 0.192),
            peer_video_freeze_percentage=(-0.653, 0.143),
        ),
        networks=cellular,
        plan="cellular",
        population=_CELLULAR + "; rows from those below",
        segment="cellular-low",
    ),
    PublishedExperiment(
        name="cellular-high",
        title="Cellular networks, high bandwidth",
        rows=_published(
            avg_sender_video_encode_fps=(0.152, 0.047),
            avg_sender_video_qp=(-0.228, 0.042),
            avg_video_quality_score=(0.297, 0.043),
            avg_video_sent_bitrate=(0.430, 0.092),
        ),
        networks=cellular,
        plan="cellular",
        population=_CELLULAR + "; rows from those above",
        segment="cellular-high",
    ),
)


def experiment_of(name: str) -> PublishedExperiment:
    """An experiment by name.

    Raises:
        UnknownNameError: the known ones are listed.
    """
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    if name not in known:
        raise unknown_name("experiment", name, known)
    return known[name]
