"""Inventories: which hosts there are, how to reach them, and their variables. Reads files, contacts nobody.

`load` reads sources into an `Inventory`; `connection` makes a host's `Connection` of its variables;
`extra_variables` reads `-e`.
"""

from hawse.inventory.connection import Connection, connection
from hawse.inventory.extra import extra_variables
from hawse.inventory.graph import Host
from hawse.inventory.inventory import Inventory, load
from hawse.inventory.varsfiles import load_file

__all__ = ["Connection", "Host", "Inventory", "connection", "extra_variables", "load", "load_file"]
