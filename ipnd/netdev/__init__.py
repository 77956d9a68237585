"""Interfaces of the host as ports: a TAP, a GRAB. ``helper`` opens them, in a process of its own, for those without
privilege; it and the ``helper_*`` modules import the standard library and ``ipn`` only.
"""
