"""How good are the language workloads on public data?

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality [--only parsing] [--work DIR]
"""

from __future__ import annotations

import sys

from benchmarks.quality import Suite

SUITE = Suite(
    name="language_quality",
    prefix="language",
    question="How good are the language workloads?",
    command="make bench-language-quality",
    packages=["torch", "numpy", "tokenizers", "transformers", "sacrebleu"],
)

if __name__ == "__main__":
    sys.exit(SUITE.main(__doc__))
