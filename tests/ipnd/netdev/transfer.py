"""TCP between two hosts of a lab, checked byte for byte."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from tests.lab import Host

RECEIVE: Final = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 7), family=socket.AF_INET)
print("ready", flush=True)
sock, _ = listener.accept()
digest = hashlib.sha256()
while data := sock.recv(1 << 16):
    digest.update(data)
print(digest.hexdigest())
"""
SEND: Final = """
import hashlib, os, socket, sys
data = os.urandom(1 << 20) * int(sys.argv[2])
sock = socket.create_connection((sys.argv[1], 7), timeout=20)
sock.sendall(data)
sock.close()
print(hashlib.sha256(data).hexdigest())
"""


def transfers(server: Host, client: Host, address: str, mib: int = 8) -> bool:
    """Send so many MiB from ``client`` to ``server`` by TCP; return whether they arrived as they were sent."""
    receiver = server.start(sys.executable, "-c", RECEIVE, address, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    try:
        assert receiver.stdout.readline() == "ready\n"
        sent = client.run(sys.executable, "-c", SEND, address, str(mib), timeout=60).stdout
        return bool(receiver.communicate(timeout=30)[0] == sent)
    finally:
        receiver.kill()
        receiver.wait()
