"""The exported modeling.py: whole, alone, and refused where names would hide one another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recaster.models
from recaster.exporting.modeling_source import compose_source

_NETWORKS = sorted(
    path
    for path in Path(recaster.models.__file__).parent.glob("*.py")
    if "\ndef build_model(" in path.read_text()
)
_ALONE = """
import importlib.util, sys
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("modeling", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["modeling"] = module
    spec.loader.exec_module(module)
    assert callable(module.build_model), path
assert not any(name.split(".")[0] == "recaster" for name in sys.modules)
"""


def test_each_network_is_built_without_recaster(tmp_path: Path) -> None:
    files = []
    for path in _NETWORKS:
        files.append(tmp_path / path.name)
        files[-1].write_text(compose_source(path))
        assert "recaster" not in files[-1].read_text().lower().replace("recaster project", "")
    assert len(files) > 5
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ALONE, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_shared_module_is_inlined_once(tmp_path: Path) -> None:
    future = "from __future__ import annotations\n\n"
    body, head = "from recaster.models.body import Body\n", "from recaster.models.head import Head\n"
    (tmp_path / "network.py").write_text(f'"""A network."""\n\n{future}{head}{body}\nPAIR = (Head, Body)\n')
    (tmp_path / "head.py").write_text(f'"""A head."""\n\n{body}\n\nclass Head(Body): ...\n')
    (tmp_path / "body.py").write_text(f'"""A body."""\n\n{future}\nclass Body: ...\n')
    text = compose_source(tmp_path / "network.py")
    names: dict[str, object] = {"__name__": "modeling"}
    exec(compile(text, "modeling.py", "exec"), names)
    assert text.count("class Body") == 1 and text.count("__future__") == 1 and "A body" not in text
    derived, base = names["PAIR"]  # type: ignore[misc]
    assert issubclass(derived, base)
    (tmp_path / "head.py").write_text(f"{body}PAIR = 1\nHead = Body\n")
    with pytest.raises(ValueError, match="PAIR twice"):
        compose_source(tmp_path / "network.py")
