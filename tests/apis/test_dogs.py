"""The Dog API's list is read whole, paged or not, and values without a meaning become null."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from apis.arrow import parquet_file
from apis.dogs import dog_api, read_breeds
from apis.http import ApiClient
from apis.tables import DOG_BREEDS, DOG_BREEDS_STAGED
from process_dog_breeds import breed_rows, parse_range
from runs.errors import CredentialsError, SourceShapeError, UnavailableError
from sandbox.apis.dogs import FakeDogs, breed, sample_breeds
from sandbox.apis.serving import Fault, serve
from tests.apis.quick import quick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apis.records import RawBreed

NOW = dt.datetime(2026, 10, 20, 6, tzinfo=dt.UTC)


@pytest.fixture
def fake() -> Iterator[FakeDogs]:
    """A fake Dog API without breeds."""
    with serve(FakeDogs()) as found:
        yield found


def read(fake: FakeDogs, key: str | None = None) -> list[RawBreed]:
    """Read all its breeds."""
    with ApiClient(quick(dog_api(key, base_url=f"{fake.url}/v1"))) as client:
        return read_breeds(client)


@pytest.mark.parametrize("counts", [True, False], ids=["counted", "not counted"])
@pytest.mark.parametrize("is_paged", [True, False], ids=["paged", "whole"])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_every_breed_is_read_once(
    fake: FakeDogs, size: int, *, is_paged: bool, counts: bool
) -> None:
    """Whether or not the API has pages, and whether or not it reports the number of breeds."""
    fake.is_paged, fake.counts = is_paged, counts
    fake.breeds = [breed(number, f"Dog {number}") for number in range(1, size + 1)]
    assert [each.breed.id for each in read(fake)] == list(range(1, size + 1))
    assert len(fake.requests) <= size // 100 + 2


def test_a_list_shorter_than_its_reported_length_is_refused(fake: FakeDogs) -> None:
    """It changed while its pages were read, so a breed may be missing: the run may be retried."""
    fake.breeds = [breed(number, f"Dog {number}") for number in range(1, 151)]
    fake.break_down(Fault(trouble="changed", skip=1, change=lambda body: body[:-1]))
    with pytest.raises(UnavailableError, match="counts 150 breeds and gave 149"):
        read(fake)


@pytest.mark.parametrize(
    ("element", "reported"),
    [
        ({"id": 1}, "missing required field `name`"),
        ({"name": "Dog"}, "missing required field `id`"),
        ({"id": "one", "name": "Dog"}, r"\$\[0\]\.id"),
        ({"id": 1, "name": "Dog", "weight": "6 - 13"}, r"\$\[0\]\.weight"),
    ],
)
def test_a_changed_element_is_refused_and_its_field_named(
    fake: FakeDogs, element: dict[str, Any], reported: str
) -> None:
    """Only id and name are required; any other field that is present must have its own type."""
    fake.breeds = [element]
    with pytest.raises(SourceShapeError, match=rf"/breeds: .*{reported}"):
        read(fake)


def test_an_error_instead_of_a_list_is_not_an_empty_list(fake: FakeDogs) -> None:
    """An object in the list's place is refused as a changed shape."""
    fake.break_down(Fault(trouble="changed", change=lambda _: {"message": "none", "status": 200}))
    with pytest.raises(SourceShapeError, match="Expected `array`"):
        read(fake)


def test_a_key_is_optional(fake: FakeDogs) -> None:
    """Without a key no header is sent; the error for a refused key names its setting."""
    read(fake)
    assert "x-api-key" not in fake.requests[0].headers
    fake.key = "right"
    read(fake, "right")
    with pytest.raises(CredentialsError, match="DOG_API_SECRET_NAME"):
        read(fake, "wrong")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("6 - 13", (6.0, 13.0)),
        ("10 - 12 years", (10.0, 12.0)),
        ("8\N{EN DASH}11 years", (8.0, 11.0)),
        ("27", (27.0, 27.0)),
        ("2.5 - 3", (2.5, 3.0)),
        ("NaN", (None, None)),
        ("NaN - 8", (None, 8.0)),
        ("8 - NaN", (8.0, None)),
        ("NaN - NaN", (None, None)),
        ("Male: 30 - 40; Female: 25 - 35", (25.0, 40.0)),
        ("", (None, None)),
        (None, (None, None)),
        ("unknown", (None, None)),
    ],
)
def test_ranges_are_parsed(text: str | None, ends: tuple[float | None, float | None]) -> None:
    """Both ends, or one number for both; an end that is NaN or unknown is null."""
    assert parse_range(text) == ends


def test_a_row_has_every_column_and_its_raw_element(fake: FakeDogs) -> None:
    """The parsed columns, and the element exactly as the API returned it."""
    fake.breeds = [
        breed(
            7,
            "Example Hound",
            weight={"imperial": "13 - 29", "metric": "6 - 13"},
            height={"metric": "NaN - 40"},
            life_span="10 - 12 years",
            temperament="Brave,  Calm, , Brave",
            origin="",
            image={"id": "i1", "width": 10, "height": 20, "url": "https://images.example.com/1"},
            unknown=[1, None],
        )
    ]
    (row,) = breed_rows(read(fake), now=NOW)
    assert [*row] == [each.name for each in DOG_BREEDS.fields]
    assert json.loads(row.pop("raw")) == fake.breeds[0]
    assert {name: value for name, value in row.items() if value is not None} == {
        "id": 7,
        "name": "Example Hound",
        "weight_kg_min": 6.0,
        "weight_kg_max": 13.0,
        "height_cm_max": 40.0,
        "life_span_years_min": 10.0,
        "life_span_years_max": 12.0,
        "temperaments": ["Brave", "Calm"],
        "reference_image_id": "i1",
        "image_url": "https://images.example.com/1",
        "image_width": 10,
        "image_height": 20,
        "ingestion_timestamp": NOW,
    }


def test_sample_breeds_fit_the_staging_table(fake: FakeDogs) -> None:
    """All of the sandbox's breeds do, also those with the fewest values."""
    fake.breeds = sample_breeds()
    table = pq.read_table(parquet_file(breed_rows(read(fake), now=NOW), DOG_BREEDS_STAGED))
    assert table.num_rows == len(sample_breeds()) == 172
    assert table.column("weight_kg_min").null_count > 10
    assert table.column("temperaments").null_count == 0
