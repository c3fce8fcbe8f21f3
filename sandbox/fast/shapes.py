"""The columns that a query results in. Planning it takes as long as running it over a few rows.

Knows DuckDB, and nothing of the emulator. Written for duckdb 1.5.5.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType


@dataclass(frozen=True, slots=True)
class Shape:
    """As much of a relation as is mostly asked for."""

    columns: list[str]
    types: list[DuckDBPyType]

    @classmethod
    def of(cls, relation: DuckDBPyRelation) -> Self:
        """The shape of this one."""
        return cls(relation.columns, relation.types)


@dataclass(frozen=True, slots=True)
class _Relation:
    """A relation whose shape is known: it is made when somebody wants more than that."""

    shape: Shape
    make: Callable[[], DuckDBPyRelation]

    @property
    def columns(self) -> list[str]:
        return self.shape.columns

    @property
    def types(self) -> list[DuckDBPyType]:
        return self.shape.types

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a relation has
        return getattr(self.make(), name)


_expected: ContextVar[tuple[str, list[Shape]] | None] = ContextVar("expected", default=None)


def expect(query: str, shape: list[Shape]) -> None:
    """Say that this query's shape is the one in the list, or belongs there if it is empty.

    It holds for the next query of the job alone: the tables may have changed before a later one.
    """
    _expected.set((query, shape))


def expect_nothing() -> None:
    """Forget what was said last."""
    _expected.set(None)


def planned(query: str, make: Callable[[], DuckDBPyRelation]) -> DuckDBPyRelation:
    """The relation that `make` returns."""
    expected, shape = _expected.get() or ("", [])
    expect_nothing()
    if expected != query:
        return make()
    if shape:
        return cast("DuckDBPyRelation", _Relation(shape[0], make))
    relation = make()
    shape.append(Shape.of(relation))
    return relation
