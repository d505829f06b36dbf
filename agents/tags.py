"""What every tag in a training run's TensorBoard means, as a table for its TEXT tab."""

from __future__ import annotations

from bwe_env.metrics import METRICS

#: Columns of the calls that are shown for validation and test calls, next to GCC's.
CALL_TAGS = (
    "mean_reward",
    "call_score",
    "freeze_ratio",
    "queue_delay_ms_p95",
    "one_way_delay_ms_p95",
    "utilisation",
    "queue_loss_ratio",
)

#: Groups of tags; `NAME` is a column of the calls or a term of the reward, explained below them.
_GROUPS = {
    "bwe/…": "training calls: mean over all intervals of a rollout, with the noise of exploration",
    "reward/TERM": "training calls: mean per interval of a term of the reward, weighted and "
    "signed; the terms add up to the reward",
    "validation/NAME": "calls on the fixed validation networks, without exploration: mean over "
    "them. The policy with the highest `validation/mean_reward` is kept",
    "validation_minus_gcc/NAME": "the same minus that of GCC on the same calls: above 0 the agent "
    "has more",
    "validation_reward/TERM": "validation calls: mean over them of a term of the reward per second "
    "of scheduled time; the terms add up to `validation/mean_reward`",
    "validation_reward_minus_gcc/TERM": "the same minus GCC's: which term the agent wins or loses "
    "by",
    "test/NAME": "calls on the test networks, once, at the end of the run, with the policy that "
    "was kept; at the step at which it was. The metrics of the HPARAMS tab",
    "test_minus_gcc/NAME": "the same minus that of GCC on the same calls",
    "call/worst": "IMAGES: the validation call by which the agent's reward was most below GCC's, "
    "or least above; the agent above, GCC below, on the same axes",
    "call/median": "IMAGES: the call in the middle of the same order",
    "call/best": "IMAGES: the call at its other end",
    "curriculum/mean_gap": "with a curriculum: GCC's reward per second less the agent's in its "
    "last training calls, exploration included; mean over the networks played. Above 0 the agent "
    "lags",
    "curriculum/effective_networks": "how many networks the draws are spread over: 1 / sum of p², "
    "with p the probability of each network; all of them while p is uniform",
    "curriculum/top_type_share": "share of the draws that the most drawn network type has",
    "curriculum/played_ratio": "share of the training networks on which a call has ended",
    "rollout/ep_rew_mean": "sum of rewards of the last 100 training calls that ended",
    "rollout/ep_len_mean": "steps of these calls",
    "time/fps": "environment steps per second of wall time, learning included",
    "train/…": "what PPO says of its updates; see Stable-Baselines3's documentation of its logger",
}

#: Metrics of an interval, in the words of the step's `info`.
_STEP_METRICS = {
    "capacity_bps": "mean capacity of the bottleneck",
    "target_rate_bps": "target of the agent at the end of the interval",
    "gcc_target_rate_bps": "target of the GCC inside",
    "sent_rate_bps": "bits handed to the network, headers and repair included",
    "receive_rate_bps": "bits that arrived, in the same way",
    "media_rate_bps": "bits of the frames shown in the last second",
    "queue_delay_ms": "waiting and service at the bottleneck, mean over packets",
    "one_way_delay_ms": "sender to receiver, mean over packets",
    "rtt_ms": "newest round-trip time at the sender",
    "queue_loss_ratio": "of the packets sent, those that met a full queue",
    "random_loss_ratio": "of the packets sent, those lost for no fault of the sender",
    "aqm_loss_ratio": "of the packets sent, those that the queue discipline dropped",
    "policer_loss_ratio": "of the packets sent, those above the policer's rate",
    "reported_random_packets": "packets lost by chance that feedback has now reported",
    "reported_congestion_packets": "packets lost to queue, AQM or policer, in the same way",
    "frozen_ratio": "of the interval, the time the picture stood still",
    "frame_rate_hz": "frames shown in the last second",
    "video_mos": "video MOS of the last second, 1 to 5",
    "call_score": "video MOS less delay impairment, of the last second",
    "utilisation": "receive_rate_bps over the capacity, capped at the maximum rate",
    "clipped_actions": "actions outside the box so far in the call",
}

_REWARD_TERMS = {
    "quality": "for the quality of the picture",
    "freeze": "against frozen time",
    "delay": "against delay",
    "loss": "against loss",
    "rate_change": "against changes of the target",
    "drop": "against the time that a dropped call had left",
}


def explanation() -> str:
    """Every tag with its meaning, as Markdown tables."""
    calls = {
        name: f"{METRICS[name].doc}{f' ({METRICS[name].unit})' if METRICS[name].unit else ''}; "
        f"better: {METRICS[name].better}"
        for name in CALL_TAGS
    }
    return "\n\n".join(
        (
            _table("tag", _GROUPS),
            _table("NAME, per call", calls),
            _table("TERM of the reward", _REWARD_TERMS),
            _table("bwe/…, per interval", _STEP_METRICS),
        )
    )


def explains(tag: str) -> bool:
    """Whether `explanation` says what this scalar or picture is."""
    group, _, name = tag.partition("/")
    if group == "bwe":
        return name in _STEP_METRICS
    endings = {"NAME": CALL_TAGS, "TERM": tuple(_REWARD_TERMS), "…": (name,)}
    return tag in _GROUPS or any(
        f"{group}/{ending}" in _GROUPS and name in names for ending, names in endings.items()
    )


def _table(heading: str, meanings: dict[str, str]) -> str:
    # A bar would end the cell: |target - capacity|.
    rows = [f"| `{name}` | {text.replace('|', '&#124;')} |" for name, text in meanings.items()]
    return "\n".join([f"| {heading} | meaning |", "|---|---|", *rows])
