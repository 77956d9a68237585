"""What the layer-3 switch knows of IP: packets, resolution, routes, neighbours, and the router over them. Pure."""
