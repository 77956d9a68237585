"""Cables: what joins networks, within a daemon and between machines."""
