"""What torch (2.13) leaves undone where the recording of a CUDA graph fails at its end.

Its caching allocator goes on as if it recorded: from then on it frees nothing for anybody, and out
of memory is "captures_underway.empty() INTERNAL ASSERT FAILED" for the rest of the process, which
trains other trials, too. The names are not public: a torch without them is left as it is.
"""

from __future__ import annotations

import torch

_END = getattr(torch._C, "_cuda_endAllocateToPool", None)
_RELEASE = getattr(torch._C, "_cuda_releasePool", None)


def end_recording(device: torch.device, pool: tuple[int, int]) -> None:
    """Nothing is allocated in ``pool`` any more, by a recording that failed."""
    if _END is None or _RELEASE is None:
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    try:
        _END(index, pool)
    except RuntimeError:  # torch has ended it, or it had not begun
        return
    _RELEASE(index, pool)
