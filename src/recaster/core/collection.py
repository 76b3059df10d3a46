"""When Python looks for garbage: less often while libraries are imported, which is most of a short cast.

Importing torch, MLflow, Great Expectations and Prefect makes millions of objects that stay. To look through
them again and again, and a last time when the process ends, takes about a third of a start's processor time.
"""

from __future__ import annotations

import atexit
import gc

_USUAL = gc.get_threshold()
_RARE = (50_000, 10, 10)


def collect_rarely() -> None:
    """From now on; what is there when the process ends is left to the system."""
    gc.set_threshold(*_RARE)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """From now on, and leave what is there: a training should not hold tensors longer than it needs them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_USUAL)
