"""What an artifact of text classification answers where it is served, and as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.synthetic import make_requests
from recaster.pipeline.export_verbs import export_model


def check_answers(cast: pipeline.Cast, to: Path) -> None:
    """The served model gives the evaluation's probabilities, and the graph written to `to` torch's logits."""
    from recaster.serving import pyfunc_text

    found = {name: pipeline.run_to(cast, name, SilentReporter()).path for name in ("evaluate", "export")}
    served: Any = pyfunc_text.TextClassifier()
    served.load_context(SimpleNamespace(artifacts={"model": str(found["export"])}))
    records = {record.id: record.text for record in make_requests()}
    ids = read_json(pipeline.run_to(cast, "prepare", SilentReporter()).path / "test.ids.json")
    frame = served.predict(None, pd.DataFrame({"text": [records[one] for one in ids]}))
    wanted = np.load(found["evaluate"] / "predictions.npy")
    np.testing.assert_allclose(frame.filter(like="p_").to_numpy(), wanted, atol=1e-5)
    exported = export_model(
        cast.settings,
        str(found["export"]),
        to,
        form="onnx",
        int8=False,
        adapter_only=False,
        base=None,
        reporter=SilentReporter(),
    )
    assert exported["difference"]["float32"]["largest"]["logits"] < 1e-4
