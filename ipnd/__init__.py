"""ipnd: the daemon that owns the networks. ``ipnd.cli`` is its command, ``ipnd.daemon`` its composition root."""
