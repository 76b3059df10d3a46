"""A hub that is slow to come, cuts, lies or is not there: what came is kept, and the next call goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.faults.hub import Hub, run_hub
from tests.integration.open_models import write_model, write_tokenizer

REPOSITORY, COMMIT = "some-org/tiny-bert", "0123456789abcdef0123456789abcdef01234567"
PINNED = f"hf:{REPOSITORY}@{COMMIT}"
_FLOATS = 6_000_000  # 24 MB: huggingface_hub writes in blocks of 10 MB, so that a cut leaves whole ones
FETCH = """
import json, os, sys
from pathlib import Path
from recaster.core.errors import RecasterError
from recaster.core.progress import SilentReporter
from recaster.core.settings import find_settings, quiet_dependencies
from recaster.pipeline.fetched_bases import fetch_base
quiet_dependencies()
accepted = sys.argv[3:] or None
refresh = "refresh" in os.environ
try:
    done = fetch_base(
        find_settings(Path(sys.argv[1])), sys.argv[2], licence=None, accepted=accepted,
        refresh=refresh, reporter=SilentReporter(),
    )
except RecasterError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print(json.dumps({**done.facts, "folder": str(done.path)}))
"""
"""A process of its own, since huggingface_hub reads its address once."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the publisher put into the repository."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    write_model(folder, tensors={"table": torch.randn(_FLOATS)})
    # A plain torch model: its check does not import transformers, which takes seconds a process.
    (folder / "config.json").write_text(json.dumps({"architecture": "mlp", "arguments": {}}))
    write_tokenizer(folder)
    torch.save({"table": torch.randn(_FLOATS // 10)}, folder / "pytorch_model.bin")
    (folder / "modeling_tiny.py").write_text("raise SystemExit('run!')")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def hub(published: Path) -> Hub:
    return Hub(published, repository=REPOSITORY, commit=COMMIT, licence="apache-2.0")


def start_fetch(project: Path, address: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    project.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(project), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(project / "hf"), **environment},
    )


def run_fetch(project: Path, address: str, *arguments: str, **environment: str) -> tuple[int, dict, str]:
    with start_fetch(project, address, *arguments, **environment) as process:
        out, told = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if process.returncode == 0 else {}, told


def test_a_cut_download_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    size = (hub.folder / "model.safetensors").stat().st_size
    kept = 10 * 2**20
    hub.cut_after = 15 * 2**20
    with run_hub(hub) as address:
        code, _, told = run_fetch(tmp_path, address, PINNED)
        assert code == 5 and "goes on where it was" in told and "Traceback" not in told
        assert list((tmp_path / ".recaster" / "steps" / "fetch").glob("*/manifest.json")) == []
        hub.down, hub.cut_after = False, None
        first, hub.served = dict(hub.served), {}
        hub.requests.clear()
        code, facts, told = run_fetch(tmp_path, address, PINNED)
        assert code == 0, told
    assert first["model.safetensors"] == 15 * 2**20
    assert hub.served["model.safetensors"] == size - kept
    assert next(line for line in hub.requests if "/lfs/" in line).endswith(f"bytes={kept}-")
    assert not any("/api/" in line for line in hub.requests), "the listing of a commit is kept"
    assert {"pytorch_model.bin", "modeling_tiny.py"}.isdisjoint(first | hub.served)
    fetched = Path(facts["folder"], "model.safetensors")
    assert fetched.read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert facts["licence"] == "apache-2.0" and facts["source"].endswith(f"/{REPOSITORY}/tree/{COMMIT}")
    assert set(facts["files"]) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


def test_offline_uses_what_is_cached_and_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    with run_hub(hub) as address:
        code, _, told = run_fetch(tmp_path / "offline", address, PINNED, RECASTER_OFFLINE="1")
        assert code == 5 and "offline is switched on" in told and "cached: nothing" in told
        assert "recaster models fetch" in told and hub.requests == []
        assert run_fetch(tmp_path / "online", address, f"hf:{REPOSITORY}@main")[0] == 0
        hub.requests.clear()
        # As the message says: bring the rest by copying the folder.
        brought = Path(".recaster", "downloads", "hub")
        shutil.copytree(tmp_path / "online" / brought, tmp_path / "offline" / brought)
        for reference in (f"hf:{REPOSITORY}@main", PINNED):
            code, facts, told = run_fetch(tmp_path / "offline", address, reference, RECASTER_OFFLINE="1")
            assert code == 0, told
            assert facts["reference"] == PINNED, "a branch is recorded as its commit"
        assert hub.requests == []


def test_a_branch_that_moves_is_followed_when_asked(hub: Hub, tmp_path: Path) -> None:
    branch, moved = f"hf:{REPOSITORY}@main", "f" * 40
    with run_hub(hub) as address:
        assert run_fetch(tmp_path, address, branch)[1]["reference"] == PINNED
        hub.commit = moved
        hub.requests.clear()
        assert run_fetch(tmp_path, address, branch)[1]["reference"] == PINNED
        assert hub.requests == [], "a cast stays with what it has"
        assert run_fetch(tmp_path, address, branch, refresh="1")[1]["reference"].endswith(moved)
        assert run_fetch(tmp_path, address, branch)[1]["reference"].endswith(moved)


def test_a_hub_that_is_down(hub: Hub, tmp_path: Path) -> None:
    hub.down = True
    with run_hub(hub) as address:
        code, _, told = run_fetch(tmp_path, address, PINNED)
    assert code == 5 and "cannot be fetched" in told and "cached: nothing" in told and "Traceback" not in told


def test_a_file_that_is_not_the_listed_one(hub: Hub, tmp_path: Path) -> None:
    hub.flip = True
    with run_hub(hub) as address:
        code, _, told = run_fetch(tmp_path, address, PINNED)
        assert code == 1 and "not the one that the hub lists" in told
        hub.flip = False
        assert run_fetch(tmp_path, address, PINNED)[0] == 0


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    with run_hub(hub) as address:
        for reference, what in (
            (f"hf:other/{'x'}@main", "no such model"),
            (f"hf:{REPOSITORY}@v9", "no such revision"),
        ):
            code, _, told = run_fetch(tmp_path, address, reference)
            assert code == 2 and what in told, told


def test_the_gate_asks_one_light_question(hub: Hub, tmp_path: Path) -> None:
    with run_hub(hub) as address:
        code, _, told = run_fetch(tmp_path, address, PINNED, "MIT", "BSD-3-Clause")
        assert code == 2 and "apache-2.0; accepted: MIT, BSD-3-Clause" in told
        assert len(hub.requests) == 1 and hub.served == {}
        hub.licence = None
        code, _, told = run_fetch(tmp_path / "unknown", address, PINNED, "MIT")
        assert code == 2 and "licence is unknown" in told and hub.served == {}


def test_two_casts_fetch_one_base_once(hub: Hub, tmp_path: Path) -> None:
    sizes = {
        name: (hub.folder / name).stat().st_size
        for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json")
    }
    with run_hub(hub) as address:
        both = [start_fetch(tmp_path, address, PINNED) for _ in range(2)]
        answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert json.loads(answers[0][0])["folder"] == json.loads(answers[1][0])["folder"]
    assert hub.served == sizes
