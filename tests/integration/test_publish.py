"""The model card, and a folder that is ready for a hub; pushing to a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from recaster import pipeline
from recaster.core.errors import ExportError
from recaster.core.progress import SilentReporter
from recaster.data.synthetic import LABELS
from recaster.exporting.card import read_licence
from recaster.exporting.hub import check_hub_ready
from recaster.pipeline.card_facts import measure_seconds
from tests.contract.method_runs import make_project
from tests.faults.hub_writes import WritableHub, run_writable_hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("publish")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = make_project(tmp_path_factory.mktemp("out") / "a project", labels=list(LABELS))
    patch = pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI"):
        patch.delenv(name, raising=False)
    quick = ["train.epochs=1", "evaluate.bootstrap_samples=100", "model.licence=MIT"]
    card = "card={intended_use: 'Sorts requests.', limits: 'Not for alarms of fire.', languages: [en]}"
    licences = "accept_licences=[MIT, Apache-2.0]"
    cast = pipeline.open_cast(recipe, [*quick, card, licences])
    patch.undo()
    assert pipeline.run(cast, SilentReporter()).accepted
    return recipe.parent


def _publish(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recaster.cli", "publish", "tiny", *arguments],
        cwd=project,
        # The hub's own storage protocol is Xet; without it huggingface_hub speaks Git LFS's.
        env={**os.environ, "HF_TOKEN": "right", "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_folder_is_ready_for_a_hub(project: Path, tmp_path: Path) -> None:
    done = _publish(project, "--to", f"path:{tmp_path / 'hub'}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "source": "tiny",
        "version": "1",
        "folder": str(tmp_path / "hub"),
        "pushed": None,
    }
    folder = tmp_path / "hub"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md", "LICENSE", "model.safetensors", "config.json", "tokenizer.json",
        "tokenizer_config.json", "preprocessing.json",
    }  # fmt: skip
    check_hub_ready(folder)
    licence = (folder / "LICENSE").read_text()
    assert (
        "base model: path:base\n    licence: MIT" in licence and "data: builtin:synthetic-requests" in licence
    )


def test_the_card_says_what_people_need(project: Path, tmp_path: Path) -> None:
    _publish(project, "--to", f"path:{tmp_path / 'hub'}")
    text = (tmp_path / "hub" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = YAML(typ="safe").load(front)
    assert told["license"] == "other" and told["license_name"] == "mit-and-apache-2.0"
    assert read_licence(tmp_path / "hub" / "README.md") == "MIT AND Apache-2.0"
    assert told["language"] == ["en"] and told["pipeline_tag"] == "text-classification"
    assert told["library_name"] == "transformers" and told["metrics"][0] == "accuracy"
    (result,) = told["model-index"][0]["results"]
    assert 0 <= result["metrics"][0]["value"] <= 1
    sections = [line for line in body.splitlines() if line.startswith("#")]
    assert [section.partition(" ")[2].split()[0] for section in sections] == [
        "tiny", "Intended", "Loading", "Metrics", "Data", "Licence", "Limits",
    ]  # fmt: skip
    wanted = ("Sorts requests.", "Not for alarms of fire.", "method `full`", "(100.00%)", "Wh (an estimate")
    tables = ("| weather |", "| data | `builtin:synthetic-requests` | Apache-2.0 |", "max_length=24")
    assert [said for said in (*wanted, *tables) if said not in body] == []
    code = body.partition("```python\n")[2].partition("```")[0]
    folder = str(tmp_path / "hub")
    ran = f"import sys; sys.modules['recaster'] = None; FOLDER = {folder!r}\n{code}\nprint(answer('a'))"
    done = subprocess.run([sys.executable, "-I", "-c", ran], capture_output=True, text=True, check=True)
    assert any(label in done.stdout for label in LABELS)


def test_nothing_leaves_without_push(project: Path) -> None:
    hub = WritableHub()
    with run_writable_hub(hub) as address:
        done = _publish(project, "--to", "hf:me/requests", HF_ENDPOINT=address)
    assert done.returncode == 0 and hub.requests == []
    assert "with --push" in done.stdout
    assert (project / ".recaster" / "published" / "me--requests" / "README.md").exists()


def test_pushed_the_hub_has_each_byte(project: Path) -> None:
    hub = WritableHub()
    with run_writable_hub(hub) as address:
        done = _publish(project, "--to", "hf:me/requests", "--push", HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr
    folder = project / ".recaster" / "published" / "me--requests"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.private and hub.message == "tiny version 1" and "/commit/" in done.stdout


@pytest.mark.parametrize(
    ("environment", "down_at", "code", "said"),
    [
        ({"HF_TOKEN": "wrong"}, None, 2, "HF_TOKEN"),
        ({}, "/commit/", 5, "the folder is written"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, None, 5, "does not answer"),
        ({"RECASTER_OFFLINE": "1"}, None, 5, "nothing was pushed"),
    ],
)
def test_a_push_that_fails_says_why(
    project: Path, environment: dict[str, str], down_at: str | None, code: int, said: str
) -> None:
    hub = WritableHub()
    hub.down_at = down_at
    with run_writable_hub(hub) as address:
        done = _publish(
            project, "--to", "hf:me/requests", "--push", **{"HF_ENDPOINT": address, **environment}
        )
    assert done.returncode == code and said in done.stderr, done.stderr
    assert hub.files == {}


def test_a_folder_that_is_not_ready_is_refused(project: Path, tmp_path: Path) -> None:
    _publish(project, "--to", f"path:{tmp_path / 'hub'}")
    shutil.copy(tmp_path / "hub" / "LICENSE", tmp_path / "hub" / "training.bin")
    (tmp_path / "hub" / "LICENSE").unlink()
    (tmp_path / "hub" / "README.md").write_text("# a model\n")
    with pytest.raises(ExportError, match=r"LICENSE, a licence in the front matter(.|\n)*training\.bin"):
        check_hub_ready(tmp_path / "hub")


@pytest.mark.parametrize("to", ["hf:alone", "me/requests", "path:"])
def test_a_place_that_is_none_is_refused(project: Path, to: str) -> None:
    done = _publish(project, "--to", to)
    assert done.returncode == 2 and "write --to hf:org/name" in done.stderr


def test_wall_time_is_that_of_all_steps() -> None:
    records = [{"kind": "train", "step": step, "time": 100.0 + step} for step in (10, 20, 30)]
    assert measure_seconds(records) == 30.0
    assert measure_seconds(records[:1]) is None and measure_seconds([]) is None
