"""Torch devices, tried out before anything is put on them."""

from __future__ import annotations

import torch


def device_fault(name: str) -> str | None:
    """Why nothing can be put on the torch device `name`, and what to do; None where it works."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"device {name!r} cannot be used: {reason}; try 'cpu'"
    return None
