"""bwe-env: bandwidth estimation for real-time video calls as a reinforcement-learning environment.

Importing this package registers `BandwidthEstimation-v0` and loads nothing heavy; the names below
are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from bwe_env.competition import Competitor as Competitor
    from bwe_env.config import CallConfig as CallConfig
    from bwe_env.env import BandwidthEstimationEnv as BandwidthEstimationEnv
    from bwe_env.estimator import BandwidthEstimator as BandwidthEstimator
    from bwe_env.estimator import RateDecision as RateDecision
    from bwe_env.estimator import RatePolicy as RatePolicy
    from bwe_env.feedback import FeedbackReport as FeedbackReport
    from bwe_env.gcc import GccParameters as GccParameters
    from bwe_env.gcc import GoogCc as GoogCc
    from bwe_env.network import Network as Network
    from bwe_env.observation import ObservationConfig as ObservationConfig
    from bwe_env.reward import RewardConfig as RewardConfig
    from bwe_env.rollout import record_calls as record_calls
    from bwe_env.rollout import run_calls as run_calls
    from bwe_env.rollout import run_series as run_series
    from bwe_env.sender_settings import SenderSettings as SenderSettings
    from bwe_env.targeted_gcc import TargetedGcc as TargetedGcc
    from bwe_env.targeting import Targeting as Targeting
    from bwe_env.targeting import TargetingPlan as TargetingPlan
    from bwe_env.telemetry import NetworkModels as NetworkModels
    from bwe_env.trace import Trace as Trace
    from bwe_env.vector_env import BandwidthEstimationVectorEnv as BandwidthEstimationVectorEnv

__version__ = "0.1.0"

_HOME = {
    "BandwidthEstimationEnv": "env",
    "BandwidthEstimationVectorEnv": "vector_env",
    "BandwidthEstimator": "estimator",
    "CallConfig": "config",
    "Competitor": "competition",
    "FeedbackReport": "feedback",
    "GccParameters": "gcc",
    "GoogCc": "gcc",
    "Network": "network",
    "NetworkModels": "telemetry",
    "ObservationConfig": "observation",
    "RateDecision": "estimator",
    "RatePolicy": "estimator",
    "RewardConfig": "reward",
    "SenderSettings": "sender_settings",
    "TargetedGcc": "targeted_gcc",
    "Targeting": "targeting",
    "TargetingPlan": "targeting",
    "Trace": "trace",
    "record_calls": "rollout",
    "run_calls": "rollout",
    "run_series": "rollout",
}

__all__ = ["__version__", *_HOME]

register(
    id="BandwidthEstimation-v0",
    entry_point="bwe_env.env:BandwidthEstimationEnv",
    vector_entry_point="bwe_env.vector_env:BandwidthEstimationVectorEnv",
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bwe_env' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bwe_env.{_HOME[name]}"), name)
