"""Uplinks: what gives a network NAT, DHCP and DNS: passt and slirp4netns."""
