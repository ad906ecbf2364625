"""Hawse side by side with its peers: `make bench`."""
