"""Smooth-plus-sparse MR image reconstruction."""

__version__ = "0.1.0"
