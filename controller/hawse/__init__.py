"""Hawse's controller: inventories, playbooks and templates, pushed to agents over SSH."""

from hawse_agent import __version__

__all__ = ["__version__"]
