"""Reinforcement learning as tasks: environments as tensors, policies rolled out in them, estimators of the gradient."""
