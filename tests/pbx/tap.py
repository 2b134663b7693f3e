"""A program between Asterisk and the service, which notes when the kernel got each of our frames.

    python tap.py PORT_TO_LISTEN_ON PORT_OF_THE_SERVICE FILE

It passes one call on, and at its end writes the monotonic second of each audio frame of the service's, one a
line; and to FILE.machine when a thread woke that did nothing but sleep from one 20 ms place to the next: what
the machine itself allows just then. A process of its own: what is measured must not wait for an event loop.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from pathlib import Path

HOST = "127.0.0.1"
SO_TIMESTAMPNS = 35
CALL_S = 120.0
AUDIO = 0x10
FRAME_S = 0.02


def receive(source: socket.socket, size: int, to_monotonic: float) -> tuple[bytes, float]:
    """Exactly so many bytes, and when the kernel got the last of them; fewer at the end of the stream."""
    data, at = b"", 0.0
    while len(data) < size:
        piece, extra, _, _ = source.recvmsg(size - len(data), 64)
        if not piece:
            break
        data += piece
        at = time.monotonic()
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", content[:16])
                at = seconds + nanoseconds / 1e9 + to_monotonic
    return data, at


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """What the PBX sends, as it comes."""
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side went first: the call is over


def yardstick(ticks: list[float], over: threading.Event) -> None:
    """Wake every 20 ms by absolute deadlines, and note when."""
    due = time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        ticks.append(time.monotonic())
        due += FRAME_S


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
        ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
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
