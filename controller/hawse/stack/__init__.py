"""Compose files to `StackSpec`: `load` reads one for a host, `render` shows what a template renders to."""

from hawse.stack.build import Build
from hawse.stack.load import load, render

__all__ = ["Build", "load", "render"]
