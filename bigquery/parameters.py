"""Query parameters: values travel in these, never in the text of a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from google.cloud import bigquery


type Parameter = bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter


def scalar(name: str, type_: str, value: str | int | datetime | date | None) -> Parameter:
    """A query parameter."""
    from google.cloud import bigquery

    return bigquery.ScalarQueryParameter(name, type_, value)


def array(name: str, type_: str, values: Iterable[object]) -> Parameter:
    """An array parameter."""
    from google.cloud import bigquery

    return bigquery.ArrayQueryParameter(name, type_, list(values))


def records(
    name: str, columns: Mapping[str, str], rows: Iterable[Sequence[str | int | None]]
) -> Parameter:
    """A parameter that is an array of records; `columns`: their types by name."""
    from google.cloud import bigquery

    types = [bigquery.ScalarQueryParameterType(type_, name=key) for key, type_ in columns.items()]
    values = [
        bigquery.StructQueryParameter(
            None,
            *(
                bigquery.ScalarQueryParameter(key, type_, value)
                for (key, type_), value in zip(columns.items(), row, strict=True)
            ),
        )
        for row in rows
    ]
    # With its type, since an empty array does not show it.
    return bigquery.ArrayQueryParameter(name, bigquery.StructQueryParameterType(*types), values)
