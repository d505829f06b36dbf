"""The single environment: the vector environment with one call, in Gymnasium's single form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from bwe_env.config import CallConfig, RandomisationConfig
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig, feature_table
from bwe_env.reward import RewardConfig
from bwe_env.targeting import SettingsPolicy
from bwe_env.telemetry import NetworkModels
from bwe_env.vector_env import BandwidthEstimationVectorEnv


class BandwidthEstimationEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Estimate the bandwidth of a video call.

    ## Description
    One video call over a bottleneck link, simulated packet by packet: camera, encoder, pacer, a
    queue served at the capacity of a trace, with whoever else sends into it, random loss, jitter,
    repair, jitter buffers, playout, feedback. Every `call.interval_s` (0.1 s) the agent decides how
    much the sender may send. Real Google Congestion Control (GCC) runs inside, as the thing to be
    scaled or in the shadow.

    ## Action Space
    `Box(-1, 1, (1,), float32)`. `action_mode="rate"`: the target rate on a logarithmic scale from
    `call.min_rate_bps` to `call.max_rate_bps`. `action_mode="scale"`: GCC's target times
    `2 ** action`; 0 is GCC. `action_mode="config"`: `Box(-1, 1, (8,), float32)`, the parameters of
    GCC in `bwe_env.action.CONFIG_PARAMETERS`; 0 leaves each as it is. Finite actions outside the
    box are clipped and counted in `info["clipped_actions"]`; NaN or a wrong shape raises
    `ActionError`.

    ## Observation Space
    `Box(-1, 1, (history * features,), float32)`: the last `observation.history` intervals, the
    newest last, of these features, mapped from [low, high] to [-1, 1] and clipped:

    {features}

    ## Rewards
    Per second, times the interval: quality of the picture (0 to 1), less frozen time, delay, loss
    and rate change, each with its weight in `RewardConfig`. A second is worth -1 to +1. A dropped
    call is charged -1 for every second it had left. The terms are in `info` as `reward_quality`,
    `reward_freeze`, `reward_delay`, `reward_loss`, `reward_rate_change` and `reward_drop`.

    ## Starting State
    Transport is ready at t = 0 and the target is `call.start_rate_bps`. The seed draws the call's
    network from `networks`, what `randomisation` makes of it, and every random number in it.

    ## Episode End
    Truncated after `call.duration_s`. Terminated when the connection drops: no consent response for
    `call.drop_timeout_s`.

    ## Arguments
    As for `BandwidthEstimationVectorEnv`; `call`, `observation`, `reward` and `gcc` may be given as
    the dataclass or as a dict of its fields.

    | `render_mode` | what it shows | needs |
    |---|---|---|
    | `None` | nothing, at no cost (default) | |
    | `"human"` | a window with the call so far, drawn as it goes on | display, tkinter, Pillow |
    | `"rgb_array"` | `render()` gives the same picture, `uint8` of (540, 960, 3) | Pillow |
    | `"ansi"` | `render()` gives the last step as a line of text | |

    In mode "human" a step lasts at least `call.interval_s`, so that the call is seen in real time,
    and there are at most `metadata["render_fps"]` pictures a second; `render()` returns None. The
    window opens with the first step. Once it is closed, the call goes on unseen and at full speed.

    ## Version History
    - v0: first version. Its dynamics change until 0.1.0 is released (CHANGELOG.md says how).
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        *,
        call: CallConfig | Mapping[str, Any] | None = None,
        networks: str | Sequence[Network] = "train",
        action_mode: str = "rate",
        observation: ObservationConfig | Mapping[str, Any] | None = None,
        reward: RewardConfig | Mapping[str, Any] | None = None,
        gcc: GccParameters | Mapping[str, Any] | None = None,
        randomisation: RandomisationConfig | Mapping[str, Any] | None = None,
        network_models: NetworkModels | None = None,
        targeting: SettingsPolicy | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._vector = BandwidthEstimationVectorEnv(
            1,
            call=call,
            networks=networks,
            action_mode=action_mode,
            observation=observation,
            reward=reward,
            gcc=gcc,
            randomisation=randomisation,
            network_models=network_models,
            targeting=targeting,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
        )
        self.render_mode = render_mode
        self.action_space = self._vector.single_action_space
        self.observation_space = self._vector.single_observation_space

    @property
    def networks(self) -> tuple[Network, ...]:
        """What resets draw from; `info["network_index"]` points into it."""
        return self._vector.networks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a call; `options={"network_index": i}` chooses its network."""
        super().reset(seed=seed)
        self._vector._generators[0] = self.np_random
        observations, _ = self._vector.reset(options=options)
        info = self._vector.info_one()
        del info["reward"]
        return observations[0], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Let one action act for one interval; its shape is that of the action space."""
        return self._vector.step_one(action)

    def render(self) -> Any:
        """The call so far as a picture, the last step as a line, or None; see the class."""
        frames = self._vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """May be called more than once."""
        self._vector.close()


if BandwidthEstimationEnv.__doc__:  # absent under `python -OO`
    BandwidthEstimationEnv.__doc__ = BandwidthEstimationEnv.__doc__.replace(
        "{features}", feature_table().replace("\n", "\n    ")
    )
