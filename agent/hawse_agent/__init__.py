"""Hawse's host side: the container engine and what provisions the host."""

__version__ = "0.1.0"
