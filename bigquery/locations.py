"""Where the datasets are: one location for all of them, settled before anything is made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from bigquery.refusals import classified
from bigquery.retries import call, start, wait_for
from runs.errors import DestinationError, SettingsError, SourceError, SourceMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse

_DEFAULT: Final = "US"  # BigQuery's own


def settled(warehouse: Warehouse, sources: Iterable[TableId]) -> Warehouse:
    """The warehouse, in the one location of its sources, its destination and BIGQUERY_LOCATION.

    Raises SettingsError where they differ, and SourceMissingError if none of them exists.
    """
    sources = tuple(sources)
    locations = find_locations(warehouse, sources)
    if not locations and sources:
        named = ", ".join(map(str, sources))
        message = (
            f"None of {named} can be found, so nothing says where the destination belongs: correct"
            " their names, grant roles/bigquery.dataViewer, or set BIGQUERY_LOCATION."
        )
        raise SourceMissingError(message)
    location = one_location(locations) or _DEFAULT
    return replace(warehouse, settings=replace(warehouse.settings, location=location))


def find_locations(warehouse: Warehouse, sources: Iterable[TableId]) -> dict[str, str]:
    """The location of each source and of the destination, where there is one, and the setting's."""
    dataset = f"{warehouse.settings.project_id}.{warehouse.settings.aggregated_dataset_id}"
    looks = {f"table {table}": partial(_table_location, warehouse, table) for table in sources}
    looks[f"dataset {dataset}"] = partial(_dataset_location, warehouse, dataset)
    asked = {name: start(look) for name, look in looks.items()}
    found = {name: wait_for(warehouse, outcome) for name, outcome in asked.items()}
    found["BIGQUERY_LOCATION"] = warehouse.settings.location
    return {name: location for name, location in found.items() if location}


def one_location(locations: Mapping[str, str]) -> str | None:
    """The location that all of them have. Raises SettingsError, naming each, if they differ."""
    if len({each.upper() for each in locations.values()}) > 1:
        listed = ", ".join(f"{name} {location}" for name, location in locations.items())
        message = (
            f"BigQuery reads and writes in one location at a time, and these differ: {listed}."
            " Unset BIGQUERY_LOCATION, or name a destination dataset that is where the sources are."
        )
        raise SettingsError(message)
    return next(iter(locations.values()), None)


def _table_location(warehouse: Warehouse, table: TableId) -> str | None:
    request = partial(warehouse.clients.bigquery.get_table, str(table))
    with classified(f"the metadata of table {table}", SourceError):
        return _location_of(warehouse, request)


def _dataset_location(warehouse: Warehouse, dataset: str) -> str | None:
    request = partial(warehouse.clients.bigquery.get_dataset, dataset)
    with classified(f"the destination dataset {dataset}", DestinationError):
        return _location_of(warehouse, request)


def _location_of(warehouse: Warehouse, request: Callable[..., object]) -> str | None:
    """None if this account can see nothing: whatever needs it reports that."""
    from google.api_core.exceptions import Forbidden, NotFound

    try:
        return getattr(call(warehouse, request), "location", None)
    except (NotFound, Forbidden):
        return None
