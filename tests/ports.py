"""Ports for what a test starts, never the defaults: a Porteiro may run on this machine."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of the loopback that nobody has now."""
    return free_ports(1, kind)[0]


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """So many of them, all different."""
    found = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    try:
        for each in found:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in found]
    finally:
        for each in found:
            each.close()


def kept_port() -> int:
    """A port that nobody has now, and that nobody is given by chance until it is listened on.

    The kernel gives ports from 32768 on to whoever asks for any.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
