"""Infi-MMR in JAX: curriculum-based reinforcement learning for small vision-language models (arXiv 2505.23091)."""

__version__ = "0.1.0"
