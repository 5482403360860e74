"""A cable with a delay, for kernels that have no netem: frames wait in this process.

lag.py ONE OTHER SECONDS makes two network interfaces, gone when it ends; what is sent into one
leaves the other so much later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import struct
import sys
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65_536

Line = queue.SimpleQueue[tuple[float, bytes]]


def tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def take(source: int, line: Line, delay_s: float) -> None:
    while True:
        try:
            line.put((time.monotonic() + delay_s, os.read(source, FRAME_BYTES)))
        except OSError:  # not up yet
            time.sleep(0.01)


def give(line: Line, target: int) -> None:
    while True:
        due, frame = line.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with contextlib.suppress(OSError):  # an interface that is down drops it
            os.write(target, frame)


def main(one: str, other: str, delay_s: float) -> None:
    first, second = tap(one), tap(other)
    for source, target in ((first, second), (second, first)):
        line: Line = queue.SimpleQueue()
        threading.Thread(target=take, args=(source, line, delay_s)).start()
        threading.Thread(target=give, args=(line, target)).start()
    print("up", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
