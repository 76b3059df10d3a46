"""What all sections of a recipe are: strict, frozen, and wary of unknown keys."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Given = TypeVar("_Given", bound="Section")


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def changed(self) -> set[str]:
        """The fields whose value is not the default: a dumped recipe states all of them."""
        fields = type(self).model_fields
        return {
            name
            for name, field in fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        }


def stated(section: _Given | None) -> _Given:
    """The section, of which the workload's kind says that it is there; a recipe without was refused."""
    assert section is not None  # noqa: S101
    return section
