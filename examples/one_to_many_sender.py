"""One (or some) to many, the sender: ``one_to_many_sender.py [PATH]``; receivers: ``one_to_many_receiver.py``.

The second example of the 2007 announcement, call by call. The sender creates the network, so it may manage it, and
says that it does not want to hear anything. Lines of the input are sent as one message each; those for which nobody
is listening yet are lost.
"""

from __future__ import annotations

import sys

import ipn


def main(path: str) -> None:
    """Create the network, or join it, and send the input's lines."""
    net = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
    net.shutdown(ipn.SHUT_RD)
    net.bind(path)
    net.connect()

    print(f"on {path}; what you type goes to every receiver, Ctrl-D leaves", file=sys.stderr)
    for line in sys.stdin.buffer:
        if message := line.rstrip(b"\n"):
            net.send(message)
    net.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "/tmp/sockipn")
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
