"""The policy that comes with the project; its model card is README.md in its folder.

>>> from agents.pretrained import default_policy
>>> policy = default_policy()
>>> policy.action_mode
'rate'

It plays calls as any controller does: ``run_calls(networks, policy, **policy.setting.options())``.
"""

from __future__ import annotations

from pathlib import Path

from agents.export import load_policy
from agents.policy_estimator import PolicyEstimator

#: The folder with policy.json, policy.safetensors, policy.onnx and the model card.
FOLDER = Path(__file__).parent / "default_policy"
#: Id and version of the environment it was trained in.
ENVIRONMENT = "BandwidthEstimation-v0"


def default_policy() -> PolicyEstimator:
    """A fresh copy of the policy, ready to decide.

    Raises:
        ArtifactError: its files are damaged.
    """
    policy: PolicyEstimator = load_policy(FOLDER, environment=ENVIRONMENT)
    return policy
