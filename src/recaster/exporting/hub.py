"""A folder that is ready for a model hub, and putting it there.

README.md with its front matter   LICENSE   model.safetensors   config.json   tokenizer or modeling.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recaster.core.errors import ExportError, RecipeError, ServiceError
from recaster.exporting.card import CARD, LICENCE, read_licence

_CODE_IN_DATA = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".h5"}
"""What may hold pickles; open weights travel as safetensors."""


def check_hub_ready(folder: Path) -> None:
    """Refuse a folder that others could not read, or that says nothing of its licence.

    Raises:
        ExportError: with all that is lacking.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    pickles = sorted(path.name for path in files if path.suffix in _CODE_IN_DATA)
    config = "adapter_config.json" if (folder / "adapter_config.json").exists() else "config.json"
    lacking = [name for name in (CARD, LICENCE, config) if not (folder / name).exists()]
    if not any(path.suffix == ".safetensors" for path in files):
        lacking.append("weights as .safetensors")
    if (folder / CARD).exists() and read_licence(folder / CARD) is None:
        lacking.append(f"a licence in the front matter of {CARD}")
    if lacking or pickles:
        told = [f"it lacks {', '.join(lacking)}"] if lacking else []
        told += [f"it has files that may carry code: {', '.join(pickles)}"] if pickles else []
        raise ExportError(
            "This folder is not ready for a hub.",
            where=str(folder),
            value="; ".join(told),
            repair="publish a registered model by its name: its cast writes its card and licence file",
        )


def push_folder(folder: Path, repository: str, *, message: str) -> str:
    """Put the folder's files into a repository of the hub that HF_ENDPOINT names, as one commit.

    A repository that is not there yet is made, for its owner's eyes alone.

    Returns:
        Where people find the commit.

    Raises:
        RecipeError: the hub refuses: no token, or no right to write there.
        ServiceError: the hub does not answer; nothing of the commit is there then.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _hub_errors(api.endpoint, repository):
        api.create_repo(repository, repo_type="model", private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, repo_type="model", folder_path=folder, commit_message=message
        )
    return str(done.commit_url)


@contextmanager
def _hub_errors(address: str, repository: str) -> Iterator[None]:
    """Turn what the hub and the network raise into our errors."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # httpx in huggingface_hub's releases 1, httpx2 in 2: the base of its own error is the one it uses.
    transport = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    assert issubclass(transport, Exception)  # noqa: S101 - for the type checker
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise _refused(address, repository, error) from error
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            raise _no_answer(address, error) from error
        raise _refused(address, repository, error) from error
    except (transport, OfflineModeIsEnabled, ConnectionError) as error:
        raise _no_answer(address, error) from error


def _refused(address: str, repository: str, error: Exception) -> RecipeError:
    return RecipeError(
        "The hub refuses the model.",
        where=f"{address}/{repository}",
        value=_first_line(error),
        repair="correct the name, and set HF_TOKEN to a token that may write there",
    )


def _no_answer(address: str, error: Exception) -> ServiceError:
    return ServiceError(
        "The hub does not answer.",
        where=address,
        value=_first_line(error),
        repair="the folder is written; run the same command again when there is a network",
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
