"""MLflow's answers as errors of ours: whether a retry helps, and what to do."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from recaster.core.errors import RegistryError, ServiceError
from recaster.tracking.runs import service_errors


@pytest.mark.parametrize(
    ("code", "kind", "named"),
    [
        (13, RegistryError, "MLFLOW_TRACKING_USERNAME"),  # UNAUTHENTICATED
        (1004, RegistryError, "administrator"),  # PERMISSION_DENIED
        (1000, RegistryError, "recaster ui"),  # INVALID_PARAMETER_VALUE
        (2, ServiceError, "start the server"),  # TEMPORARILY_UNAVAILABLE
    ],
)
def test_repairs(code: int, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named), service_errors("http://tracking.example"):
        raise MlflowException("no", error_code=code)
