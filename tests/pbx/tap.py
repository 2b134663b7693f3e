"""A program between Asterisk and the service, which notes when the kernel got each of our frames.

    python tap.py PORT_TO_LISTEN_ON PORT_OF_THE_SERVICE FILE

It passes one call on, and at its end writes the monotonic second of each audio frame of the service's, one a
line; and to FILE.machine when a thread woke that did nothing but sleep from one 20 ms place to the next: what
the machine itself allows just then. A process of its own: what is measured must not wait for an event loop.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

from bench.clock import receive, stamped, yardstick

HOST = "127.0.0.1"
CALL_S = 120.0
AUDIO = 0x10


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """What the PBX sends, as it comes."""
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side went first: the call is over


def main(listen: int, service: int, out: Path) -> None:
    """Pass one call on."""
    to_monotonic = time.monotonic() - time.time()
    with socket.create_server((HOST, listen)) as server:
        server.settimeout(CALL_S)
        pbx, _ = server.accept()
    with pbx, socket.create_connection((HOST, service), timeout=CALL_S) as ours:
        for each in (pbx, ours):
            each.settimeout(CALL_S)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamped(ours)
        threading.Thread(target=pass_on, args=(pbx, ours), daemon=True).start()
        arrivals: list[float] = []
        ticks: list[float] = []
        over = threading.Event()
        sleeper = threading.Thread(target=yardstick, args=(ticks, over))
        sleeper.start()
        try:
            while len(header := receive(ours, 3, to_monotonic)[0]) == 3:
                body, at = receive(ours, int.from_bytes(header[1:], "big"), to_monotonic)
                if header[0] == AUDIO:
                    arrivals.append(at)
                pbx.sendall(header + body)
        except OSError:
            pass  # the PBX hung up: the call is over, and what came of it is written
        over.set()
        sleeper.join()
    for path, times in ((out, arrivals), (out.with_name(f"{out.name}.machine"), ticks)):
        path.write_text("".join(f"{at:.6f}\n" for at in times))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
