"""Seeds as a function of what they are for, so that no random state has to be carried along."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose, for example `derive_seed(7, "shuffle", epoch)`.

    Streams of different purposes are independent; the same purpose gives the same stream
    in every process, on every resume.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
