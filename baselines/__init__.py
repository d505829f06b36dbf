"""Hand-tuned controllers to beat, by name.

>>> from baselines import make
>>> make("constant:500000").name
'constant:500000'
"""

from baselines.registry import NAMES, Baseline, make

__all__ = ["NAMES", "Baseline", "make"]
