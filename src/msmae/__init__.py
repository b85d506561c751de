"""Supervised attention-driven masked autoencoders for medical images."""

__version__ = "0.1.0"
