"""Command lines: train, evaluate, benchmark, and what they share. Nothing imports this folder."""
