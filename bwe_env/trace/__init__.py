"""Capacity traces, and the networks made of them. Imports neither numba nor torch."""

from bwe_env.trace.alphartc import AlphaRtcTrace, read_alphartc
from bwe_env.trace.bank import TraceBank, build_bank
from bwe_env.trace.catalog import SPLITS, networks, real_networks
from bwe_env.trace.generators import constant, square, step
from bwe_env.trace.paths import draw_network
from bwe_env.trace.readers import read_csv, read_directory, read_losses, read_mahimahi
from bwe_env.trace.trace import NETWORK_TYPES, Trace

__all__ = [
    "NETWORK_TYPES",
    "SPLITS",
    "AlphaRtcTrace",
    "Trace",
    "TraceBank",
    "build_bank",
    "constant",
    "draw_network",
    "networks",
    "read_alphartc",
    "read_csv",
    "read_directory",
    "read_losses",
    "read_mahimahi",
    "real_networks",
    "square",
    "step",
]
