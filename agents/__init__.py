"""Learning agents over the vector environment: PPO with Stable-Baselines3, callbacks, export."""
