"""Every error that Recaster raises on purpose.

    RecasterError                exit code 1, a retry does not help
    ├── RecipeError              2  the recipe or the command line is wrong
    ├── ResourceError            2  the recipe asks for more memory or disk than there is
    ├── DataError                3  the data set cannot be read or used
    │   └── ContractError        3  the data was read, and breaks its contract
    ├── ServiceError             5  MLflow, Prefect or a remote store did not answer (retryable)
    ├── RegistryError            1  MLflow answered, and refused what it was asked
    ├── StorageError             1  a folder cannot be written, or is full
    ├── BaseModelError           1  an open model's files are damaged, unsafe, or not what was named
    ├── ExportError              1  an exported form does not answer as the model does
    ├── LockHeldError            1  another cast of the same model is running (retryable)
    ├── CheckpointError          1  no usable checkpoint is left
    ├── DivergedError            1  loss or gradient became non-finite
    ├── CollapsedError           1  a generator makes the same picture over and over
    ├── OutOfMemoryError         1  memory does not hold the model and one sample
    ├── TrainingError            1  the training processes ended without a result
    ├── SearchError              1  no trial of a search came to its end
    └── StoppedError             1  training was stopped on purpose, and can go on

A gate that says no (exit code 4) is a result, not an error.

A message says what went wrong, where, the value found, and the repair.
"""

from __future__ import annotations

from typing import ClassVar


class RecasterError(Exception):
    """Base of all; carries the command's exit code and whether a retry may help."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", value: object = None, repair: str = "") -> None:
        self.what, self.where, self.value, self.repair = what, where, value, repair
        super().__init__(what, where, value, repair)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where:  {self.where}")
        if self.value is not None:
            parts.append(f"  value:  {self.value}")
        if self.repair:
            parts.append(f"  repair: {self.repair}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling with all four parts (Prefect stores exceptions of failed runs)."""
        return _rebuild, (type(self), self.what, self.where, str(self.value or ""), self.repair)


def _rebuild(kind: type[RecasterError], what: str, where: str, value: str, repair: str) -> RecasterError:
    return kind(what, where=where, value=value or None, repair=repair)


class RecipeError(RecasterError):
    """The recipe or the command line is wrong; nothing was started."""

    exit_code = 2


class ResourceError(RecasterError):
    """The recipe asks for more memory or disk than there is; no step was taken."""

    exit_code = 2


class DataError(RecasterError):
    """The data set cannot be read or used."""

    exit_code = 3


class ContractError(DataError):
    """The data set was read and breaks its contract; its report says where."""


class ServiceError(RecasterError):
    """A service did not answer in time; what was done so far is kept."""

    exit_code = 5
    retryable = True


class RegistryError(RecasterError):
    """The tracking store or registry answered, and refused what it was asked."""


class StorageError(RecasterError):
    """A folder of ours cannot be written."""


class BaseModelError(RecasterError):
    """An open model's files are damaged, unsafe, or not what was named; nothing of them was used."""


class ExportError(RecasterError):
    """An exported form does not answer as the model does; it was not written."""


class LockHeldError(RecasterError):
    """Another live process holds the model's lock."""

    retryable = True


class CheckpointError(RecasterError):
    """A checkpoint is damaged, and none before it can be used."""


class DivergedError(RecasterError):
    """Loss or gradient norm became non-finite; weights are those of the step before."""


class CollapsedError(RecasterError):
    """What a model generates has lost its variety; training it further is not worth its time."""


class OutOfMemoryError(RecasterError):
    """Memory does not hold the model and one sample; a larger device or another strategy helps."""


class TrainingError(RecasterError):
    """The training processes ended without a result; their log is named."""


class SearchError(RecasterError):
    """A search ended without one complete trial."""


class StoppedError(RecasterError):
    """Training was stopped on purpose; its checkpoints are kept."""
