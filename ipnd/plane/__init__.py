"""The data plane: batches of frames from one member's socket to the others'.

``batch`` cuts what was read into frames (pure), ``port`` is a member as the plane sees it, ``links`` read and write
data sockets, ``delivery`` decides what happens when a receiver is full, ``plane`` is the loop.
"""
