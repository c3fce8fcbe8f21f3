"""Names and schemas of tables, as records. Knows no client. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from runs.errors import SettingsError

_DATASET = re.compile(r"[A-Za-z0-9_]{1,1024}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{0,61}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableId:
    """A table's full name, checked, because identifiers are put into SQL unchanged."""

    project: str
    dataset: str
    name: str

    def __post_init__(self) -> None:
        """Raise SettingsError for a name that is not a valid identifier."""
        fits = (
            _PROJECT.fullmatch(self.project)
            and _DATASET.fullmatch(self.dataset)
            and _NAME.fullmatch(self.name)
        )
        if not fits:
            message = f"{self} is not a table name BigQuery knows: check the project and datasets."
            raise SettingsError(message)

    @classmethod
    def parse(cls, text: str, *, project: str, dataset: str) -> Self:
        """The table that `[project.][dataset.]table` names, in these by default."""
        *before, name = text.rsplit(".", 2)
        defaults = [project, dataset]
        project, dataset = [*defaults[: 2 - len(before)], *before]
        return cls(project=project, dataset=dataset, name=name)

    def __str__(self) -> str:
        """`project.dataset.table`, as people write it."""
        return f"{self.project}.{self.dataset}.{self.name}"

    @property
    def sql(self) -> str:
        """The name as written in SQL."""
        return f"`{self.project}`.`{self.dataset}`.`{self.name}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of a table. `fields` are those of a RECORD."""

    name: str
    type: str
    description: str = ""
    is_repeated: bool = False
    is_required: bool = False
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """A destination table: its columns, partitioning and clustering."""

    fields: tuple[Field, ...]
    description: str
    partitioned_by: str | None = None
    clustered_by: tuple[str, ...] = ()
