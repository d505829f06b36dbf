"""The states of BBR and their gains, draft-ietf-ccwg-bbr-05 §5.1 and §5.6.1."""

from __future__ import annotations

from enum import StrEnum

from baselines.bbr_model import (
    DEFAULT_CWND_GAIN,
    DRAIN_PACING_GAIN,
    PROBE_BW_DOWN_PACING_GAIN,
    PROBE_BW_UP_CWND_GAIN,
    PROBE_BW_UP_PACING_GAIN,
    PROBE_RTT_CWND_GAIN,
    STARTUP_PACING_GAIN,
)


class State(StrEnum):
    """§5.1.1."""

    STARTUP = "Startup"
    DRAIN = "Drain"
    DOWN = "ProbeBW_DOWN"
    CRUISE = "ProbeBW_CRUISE"
    REFILL = "ProbeBW_REFILL"
    UP = "ProbeBW_UP"
    PROBE_RTT = "ProbeRTT"


#: Pacing gain and window gain of each state, §5.6.1.
GAINS = {
    State.STARTUP: (STARTUP_PACING_GAIN, DEFAULT_CWND_GAIN),
    State.DRAIN: (DRAIN_PACING_GAIN, DEFAULT_CWND_GAIN),
    State.DOWN: (PROBE_BW_DOWN_PACING_GAIN, DEFAULT_CWND_GAIN),
    State.CRUISE: (1.0, DEFAULT_CWND_GAIN),
    State.REFILL: (1.0, DEFAULT_CWND_GAIN),
    State.UP: (PROBE_BW_UP_PACING_GAIN, PROBE_BW_UP_CWND_GAIN),
    State.PROBE_RTT: (1.0, PROBE_RTT_CWND_GAIN),
}
PROBE_BW_STATES = frozenset((State.DOWN, State.CRUISE, State.REFILL, State.UP))
#: BBRIsProbingBW, §5.3.3.6.
PROBING_STATES = frozenset((State.STARTUP, State.REFILL, State.UP))


class AckPhase(StrEnum):
    """What acknowledgements tell of, §5.3.3.6."""

    INIT = "ACKS_INIT"
    REFILLING = "ACKS_REFILLING"
    PROBE_STARTING = "ACKS_PROBE_STARTING"
    PROBE_FEEDBACK = "ACKS_PROBE_FEEDBACK"
    PROBE_STOPPING = "ACKS_PROBE_STOPPING"
