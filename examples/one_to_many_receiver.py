"""One (or some) to many, a receiver: ``one_to_many_receiver.py [PATH]``, as many as you like, whenever you like.

The second example of the 2007 announcement, call by call. A receiver does not define the network, so it leaves out
the ``bind``, and needs no right but *r* on the socket file. It listens until Ctrl-C: senders may come and go, since a
network lives as long as anybody is on it.
"""

from __future__ import annotations

import sys

import ipn


def main(path: str) -> None:
    """Join and print every message, until the network is gone."""
    net = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
    net.shutdown(ipn.SHUT_WR)
    net.connect(path)

    print(f"on {path}; Ctrl-C leaves", file=sys.stderr)
    for message in net:
        print(message.decode(errors="replace"), flush=True)
    print(f"the network {path} has ended", file=sys.stderr)
    net.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "/tmp/sockipn")
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
