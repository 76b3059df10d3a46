"""Word vectors by gensim on the same words; `benchmarks.language_embedding` runs it where gensim is.

python benchmarks/gensim_peer.py PREPARED SETTINGS.json vectors.txt      prints {"words_per_second": …}
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np


def main(prepared: Path, settings: dict[str, Any], to: Path) -> None:
    """Train on the prepared split, whose rare words are left out already; write word2vec's text form."""
    from gensim.models import FastText, Word2Vec

    words = np.array(json.loads((prepared / "vocabulary.json").read_text(encoding="utf-8"))["words"])
    tokens, offsets = np.load(prepared / "train.tokens.npy"), np.load(prepared / "train.offsets.npy")
    sentences = [words[tokens[begin:end]].tolist() for begin, end in pairwise(offsets)]
    kind = FastText if "bucket" in settings else Word2Vec
    model = kind(min_count=1, seed=1, **settings)
    model.build_vocab(sentences)
    wall, work = time.perf_counter(), time.process_time()
    model.train(sentences, total_examples=model.corpus_count, epochs=settings["epochs"])
    wall, work = time.perf_counter() - wall, time.process_time() - work
    model.wv.save_word2vec_format(str(to))
    count = len(tokens) * settings["epochs"]
    told = {"words_per_second": count / wall, "words_per_cpu_second": count / work, "seconds": wall}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
