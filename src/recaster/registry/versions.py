"""Model versions and their aliases: created once, promoted on yes, rolled back to what was before."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.clock import now
from recaster.core.errors import RecasterError
from recaster.core.files import read_json
from recaster.tracking.runs import FINGERPRINT, service_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
_PROMOTED_OVER, _ROLLED_BACK = "recaster.promoted_over", "recaster.rolled_back_at"
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A champion that stepped down, and the one that came back."""

    former: str
    restored: str


def register_version(
    client: MlflowClient,
    *,
    uri: str,
    name: str,
    run_id: str,
    artifact: Path,
    served_by: str,
    fingerprint: str,
    description: str,
    tags: dict[str, str],
) -> str:
    """The version with this fingerprint; made from the artifact directory if it is not there.

    The version row is written last and in one call, so a process killed before leaves none.

    Args:
        uri: of the registry, for messages.
        served_by: the module of `recaster.serving` that answers for the artifact.

    Raises:
        ServiceError, RegistryError: see `service_errors`.
    """
    with service_errors(uri):
        for version in list_versions(client, name):
            if version.tags.get(FINGERPRINT) == fingerprint:
                return str(version.version)
        source = _log_model(client, run_id, artifact, served_by)
        _ensure_model(client, name)
        created = client.create_model_version(
            name,
            source,
            run_id,
            tags={FINGERPRINT: fingerprint, **tags},
            description=description,
            model_id=source.removeprefix("models:/"),
        )
    return str(created.version)


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(client: MlflowClient, run_id: str, artifact: Path, served_by: str) -> str:
    """Log an ordinary pyfunc model from code (no pickle) into the run; return its `models:/ID` address."""
    import mlflow

    served = importlib.import_module(f"recaster.serving.{served_by}")
    experiment = client.get_run(run_id).info.experiment_id
    for old in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        # A model without a version is what a killed process left behind.
        if not any(True for _ in client.search_model_versions(f"run_id = '{run_id}'")):
            client.delete_logged_model(old.model_id)
    signature, example = served.describe(artifact)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=served.__file__,
            artifacts={"model": str(artifact)},
            signature=signature,
            input_example=example,
            pip_requirements=_requirements([*served.PACKAGES, *_model_packages(artifact)]),
        )
    return f"models:/{logged.model_id}"


def _model_packages(artifact: Path) -> list[str]:
    """What reads the artifact beside torch: the library of its model's type."""
    return ["transformers"] if "model_type" in read_json(artifact / "config.json") else []


def _requirements(names: Sequence[str]) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in dict.fromkeys(names)]


def list_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of the model, with tags."""
    return list(client.search_model_versions(f"name = '{name}'", max_results=_PAGE))


def find_champion(client: MlflowClient, name: str) -> str | None:
    """The champion's version, or None."""
    return _aliases(client, name).get(CHAMPION)


def find_version(client: MlflowClient, name: str, named: str) -> str | None:
    """The version that `named`, an alias or a version's number, stands for; None when there is none."""
    if not named.isdigit():
        return _aliases(client, name).get(named)
    return named if named in {str(entry.version) for entry in list_versions(client, name)} else None


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        aliases: dict[str, Any] = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(version) for alias, version in aliases.items()}


def promote_version(client: MlflowClient, name: str, version: str, *, over: str, reason: str) -> None:
    """Make `version` champion, remembering whom it replaced; the alias moves last."""
    if over != version:  # a promotion cut off after the alias moved is finished, not made its own predecessor
        client.set_model_version_tag(name, version, _PROMOTED_OVER, over)
    client.set_model_version_tag(name, version, "recaster.promoted_because", reason[:4000])
    client.set_model_version_tag(name, version, "recaster.promoted_at", now())
    if rolled_back_at(client, name, version):
        client.delete_model_version_tag(name, version, _ROLLED_BACK)
    if _aliases(client, name).get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    client.set_registered_model_alias(name, CHAMPION, version)


def take_out(client: MlflowClient, name: str, version: str) -> None:
    """Note that people took `version` out of production; the gate will not put it back by itself."""
    client.set_model_version_tag(name, version, _ROLLED_BACK, now())


def mark_challenger(client: MlflowClient, name: str, version: str, *, reason: str) -> None:
    """Point the alias `challenger` to a version that was refused, and note why on it."""
    client.set_model_version_tag(name, version, "recaster.refused_because", reason[:4000])
    client.set_registered_model_alias(name, CHALLENGER, version)


def roll_back(client: MlflowClient, name: str) -> Rollback:
    """Give the alias `champion` back to the version that the present one replaced.

    Raises:
        RecasterError: there is no champion, or none before it.
    """
    champion = find_champion(client, name)
    former = client.get_model_version(name, champion).tags.get(_PROMOTED_OVER, "") if champion else ""
    if not champion or not former:
        raise RecasterError(
            "There is no former champion to go back to.",
            where=f"model {name}",
            value=f"champion: {champion or 'none'}",
            repair=f"see `recaster history {name}`; `recaster promote {name} --version V` names one by hand",
        )
    take_out(client, name, champion)
    client.set_registered_model_alias(name, CHAMPION, former)
    return Rollback(former=champion, restored=former)


def rolled_back_at(client: MlflowClient, name: str, version: str) -> str | None:
    """When people took the version out of production, or None."""
    moment: str | None = client.get_model_version(name, version).tags.get(_ROLLED_BACK)
    return moment


def promoted_because(client: MlflowClient, name: str, version: str) -> str:
    """Why the version became champion, as `promote_version` was told."""
    tags: dict[str, str] = client.get_model_version(name, version).tags
    return tags.get("recaster.promoted_because", "it is champion already")


def fetch_artifact(client: MlflowClient, name: str, version: str, target: Path) -> Path:
    """Copy the version's model directory to `target`."""
    import mlflow

    client.get_model_version(name, version)
    local = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}"))
    shutil.copytree(next(local.glob("artifacts/*")), target)
    return target


def load_model(client: MlflowClient, name: str, alias: str) -> tuple[PyFuncModel, dict[str, Any]]:
    """The version that `alias` names, loaded as any MLflow user would, and what its input must look like.

    Raises:
        RecasterError: no version has this alias.
    """
    import mlflow

    local = _download(client, name, alias)
    folder = next(local.glob("artifacts/*"))
    return mlflow.pyfunc.load_model(str(local)), read_json(folder / "preprocessing.json")


def find_artifact(client: MlflowClient, name: str, alias: str) -> Path:
    """The model directory of the version that `alias` names, on this machine.

    Raises:
        RecasterError: no version has this alias.
    """
    return next(_download(client, name, alias).glob("artifacts/*"))


def _download(client: MlflowClient, name: str, alias: str) -> Path:
    import mlflow

    version = _aliases(client, name).get(alias)
    if version is None:
        raise RecasterError(
            "No model version has this alias.",
            where=f"models:/{name}",
            value=alias,
            repair="run a cast first",
        )
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}"))
