"""A process of its own that joins a cluster as a run does, and says what it found there.

joining.py HOST:PORT
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from medaug.errors import MedaugError
from medaug.sweep.cluster.start import Cluster

WORKS = f"nodes: 1 {signal.SIG_DFL}\nworks: True\n"
"""What it says of a cluster of one node whose actors live; Ray's own handler of SIGTERM would raise
anywhere."""


def join(address: str, **ray: str) -> subprocess.CompletedProcess[str]:
    """Join with these settings of Ray and no other ones."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    command = [sys.executable, "-m", "tests.cluster.joining", address]
    return subprocess.run(
        command, env={**environment, **ray}, capture_output=True, text=True, timeout=200
    )


class Actor:
    def works(self) -> bool:
        return True


def main(address: str) -> None:
    cluster = Cluster(address)
    try:
        cluster.start()
    except MedaugError as error:
        sys.exit(f"{error.exit_code} {error}")
    import ray

    print("nodes:", len(ray.nodes()), signal.getsignal(signal.SIGTERM))
    actor = ray.remote(num_cpus=0)(Actor).remote()  # type: ignore[call-overload]
    print("works:", ray.get(actor.works.remote(), timeout=60))
    cluster.stop()


if __name__ == "__main__":
    main(sys.argv[1])
