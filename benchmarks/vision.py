"""How good are the vision workloads on public data?

RECASTER_TEST_DATA=DIR python -m benchmarks.vision [--only detection] [--work DIR]
"""

from __future__ import annotations

import sys

from benchmarks.quality import Suite

SUITE = Suite(
    name="vision",
    prefix="vision",
    question="How good are the vision workloads?",
    command="make bench-vision",
    packages=["torch", "numpy", "pillow", "faster-coco-eval"],
)

if __name__ == "__main__":
    sys.exit(SUITE.main(__doc__))
