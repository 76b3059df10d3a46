"""How many ranks a recipe's mesh can go on with when some are lost, and the mesh for that many.

ranks 4, mesh {data: 2, tensor: 2}, min_ranks 2   →   4 or 2 ranks; with 2: {data: 1, tensor: 2}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaster.core.files import read_json, write_json

PLAN, FAILURE = "plan.json", "failure.json"


def rank_counts(section: Mapping[str, Any]) -> list[int]:
    """The numbers of ranks that the plan's `distributed` section allows, from all of them downwards."""
    return list(range(section["ranks"], section["min_ranks"] - 1, -_ranks_per_copy(section["mesh"])))


def fit_section(section: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """`section` for `ranks` ranks: only copies and shards of the model become fewer or more.

    Raises:
        ValueError: the mesh cannot be laid out over so many.
    """
    mesh = dict(section["mesh"])
    data_ranks, rest = divmod(ranks, _ranks_per_copy(mesh))
    if rest or not data_ranks:
        raise ValueError(f"a mesh of {mesh} does not fit {ranks} ranks")
    if data_ranks % mesh["shard"]:  # as many shards as there can be: less memory on each rank
        mesh |= {"data": 1, "shard": data_ranks}
    elif section["strategy"] == "fsdp" and mesh["data"] == 1:
        mesh["shard"] = data_ranks
    else:
        mesh["data"] = data_ranks // mesh["shard"]
    return {**section, "mesh": mesh, "ranks": ranks}


def fit_plan(run_dir: Path, *, ranks: int) -> None:
    """Make the plan in `run_dir` one for `ranks` ranks; each rank calls it, and all write the same.

    Global batches, and so what each step trains on, stay as they are. `elastic` in the plan keeps
    the section that the recipe asked for.
    """
    plan: dict[str, Any] = read_json(run_dir / PLAN)
    wanted = plan.get("elastic", plan["distributed"])
    section = fit_section(wanted, ranks) if ranks != wanted["ranks"] else wanted
    if section != plan["distributed"]:
        write_json(run_dir / PLAN, {**plan, "distributed": section, "elastic": wanted})


def _ranks_per_copy(mesh: Mapping[str, int]) -> int:
    return mesh["pipe"] * mesh["tensor"]
