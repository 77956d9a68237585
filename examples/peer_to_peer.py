"""Peer to peer: every process that runs this hears all the others. ``peer_to_peer.py [PATH]``, in several terminals.

The first example of the 2007 announcement, call by call. The first process creates the network, the others join it;
it ends with the last. Lines typed here go to everybody else, as one message each.
"""

from __future__ import annotations

import os
import select
import sys

import ipn


def main(path: str) -> None:
    """Join, then pass on what is typed and print what is heard, until the end of the input."""
    net = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
    net.bind(path)
    net.connect()

    print(f"on {path}; what you type goes to everybody else, Ctrl-D leaves", file=sys.stderr)
    sources = select.poll()
    sources.register(net, select.POLLIN)
    sources.register(sys.stdin, select.POLLIN)
    while True:
        ready = [fd for fd, _ in sources.poll()]
        if net.fileno() in ready:
            message = net.recv()
            if not message:
                sys.exit("the network is gone")
            print(message.decode(errors="replace"), flush=True)
        if sys.stdin.fileno() in ready:
            # Not readline: lines that it read ahead would not wake the poll.
            typed = os.read(sys.stdin.fileno(), net.mtu)
            if not typed:
                break
            for line in typed.splitlines():
                if line:
                    net.send(line)
    net.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "/tmp/sockipn")
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
