"""An embedded cluster in a process of its own: says that it is up, and ends with its input."""

from __future__ import annotations

import json
import os
import signal
import sys

from medaug.sweep.cluster.start import Cluster


def who() -> int:
    return os.getpid()


if __name__ == "__main__":
    os.umask(0o022)  # as in a notebook; the command line's is 077
    cluster = Cluster(cpus=1)
    cluster.start()
    import ray

    pid = ray.get(ray.remote(who).remote())  # a worker listens, too
    up = {"address": ray.get_runtime_context().gcs_address, "worker": pid}
    up["sigterm"] = str(signal.getsignal(signal.SIGTERM))
    print(json.dumps(up), flush=True)
    sys.stdin.read()
    cluster.stop()
