"""Gateways: how members that are not clients of the control protocol get onto a network. One kind, one file."""
