"""Single calls for tests: stepped by hand, as finely as wanted, every packet kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import AudioConfig, CallConfig, VideoConfig
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.sim.batch import MODE_NONE, MODE_RATE, MODE_SCALE
from bwe_env.sim.flow import CONTROLLER_ACTION, CONTROLLER_GCC
from bwe_env.sim.packet import PACKET
from bwe_env.sim.state import World
from bwe_env.units import s_to_us

MODES = {"gcc": MODE_NONE, "scale": MODE_SCALE, "rate": MODE_RATE}

#: A camera whose every frame is exactly what the rate says, without sound; shown at once.
PLAIN_VIDEO = VideoConfig(
    encoder_lag_s=0.0, frame_size_sd=0.0, key_frame_ratio=1.0, jitter_buffer=False
)
SILENT = AudioConfig(enabled=False)


class OneCall:
    """A world with one call.

    Args:
        mode: "gcc" alone, "scale" times GCC, or target "rate" in bps.
        step_us: how far one `step` goes; any whole number, not only the call's own interval.
        packet_rows: ring length, a power of two; larger than what the call sends keeps it all. None
            for what the world gives itself.
    """

    def __init__(
        self,
        network: Network,
        call: CallConfig | None = None,
        *,
        mode: str = "gcc",
        key: int = 1,
        step_us: int = 100_000,
        packet_rows: int | None = 1 << 14,
        reward: RewardConfig | None = None,
    ) -> None:
        self.network = network
        self.config = call or CallConfig()
        self.key = key
        self.step_us = step_us
        self._mode = MODES[mode]
        self.world = World.make(
            1,
            [network],
            self.config,
            # A set rate as it is: the window that holds it back has tests of its own.
            gcc=GccParameters(cwnd_enabled=mode != "rate"),
            reward=reward or RewardConfig(),
            observation=ObservationConfig(history=2),
            controller=CONTROLLER_ACTION if mode == "rate" else CONTROLLER_GCC,
        )
        if packet_rows is not None:
            self.world.packets = np.zeros((len(self.world.flows), packet_rows), dtype=PACKET)
        self.world.reset(0, 0, key)

    def step(self, value: float = 0.0) -> Any:
        """One step; returns its STEP row."""
        self.world.step(
            self._mode,
            np.array([float(value)]),
            np.ones(1, dtype=np.bool_),
            interval_us=self.step_us,
            duration_us=s_to_us(self.config.duration_s),
        )
        return self.world.steps[0].copy()

    def run_until(self, time_s: float, value: float = 0.0) -> NDArray[Any]:
        """Steps up to a time (or the call's drop); returns their STEP rows."""
        rows = [self.world.steps[:1].copy()[:0]]
        while self.now_us < s_to_us(time_s) and self.is_active:
            self.step(value)
            rows.append(self.world.steps[:1].copy())
        return np.concatenate(rows)

    @property
    def now_us(self) -> int:
        return int(self.world.calls["now_us"][0])

    @property
    def is_active(self) -> bool:
        return bool(self.world.calls["status"][0] == 0)

    @property
    def call(self) -> Any:
        """The CALL record, writable."""
        return self.world.calls[0]

    @property
    def flow(self) -> Any:
        """The FLOW record, writable."""
        return self.world.flows[0]

    @property
    def packet_rows(self) -> int:
        """Length of the ring of packets."""
        return int(self.world.packets.shape[1])

    @property
    def packets(self) -> NDArray[Any]:
        """All packets sent so far, in order."""
        sent = int(self.flow.history.next_seq)
        assert sent <= self.packet_rows, "packet_rows is too small to keep them all"
        return self.world.packets[0, :sent]

    def set_forward_loss(self, probability: float) -> None:
        """From now on every packet is lost with this probability."""
        self.call.forward.loss.good_loss = probability

    def set_reverse_loss(self, probability: float) -> None:
        """From now on every message to the sender is lost with this probability."""
        self.call.reverse.loss.good_loss = probability
