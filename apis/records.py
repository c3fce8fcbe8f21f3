"""What the APIs answer, as far as it is used: typed records. Pure.

A field without a default must be there: without it, or with a value of another type, an answer is
refused. Fields that an API adds are ignored. What may be missing or null is None.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

type UtcDay = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}(T00:00:00(\.0+)?(Z|\+00:00))?$")]
"""A day as Anthropic writes it: a date, or the moment that it begins."""

type Cents = Annotated[str, Meta(pattern=r"^-?\d{1,20}(\.\d{1,30})?([eE][-+]?\d)?$")]
"""An amount as text: never a number, which would have lost digits, nor NaN."""


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """Part of an answer."""


# Anthropic's Admin API


class Organization(Record, frozen=True, kw_only=True):
    """`/v1/organizations/me`."""

    id: str


class CostResult(Record, frozen=True, kw_only=True):
    """What one kind of use cost on one day: `amount` in cents, as text."""

    amount: Cents
    currency: str
    workspace_id: str | None = None
    description: str | None = None
    cost_type: str | None = None
    context_window: str | None = None
    model: str | None = None
    service_tier: str | None = None
    token_type: str | None = None


class CacheCreation(Record, frozen=True, kw_only=True):
    """Tokens written into caches."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class ServerToolUse(Record, frozen=True, kw_only=True):
    """Uses of tools that Anthropic runs."""

    web_search_requests: int


class UsageResult(Record, frozen=True, kw_only=True):
    """What one key used of one model on one day, grouped as it was asked for."""

    uncached_input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    server_tool_use: ServerToolUse
    api_key_id: str | None = None
    workspace_id: str | None = None
    model: str | None = None


class Bucket[Result](Record, frozen=True, kw_only=True):
    """A day of a report."""

    starting_at: UtcDay
    results: list[Result]


class ReportPage[Item](Record, frozen=True, kw_only=True):
    """A page of any report."""

    data: list[Item]
    has_more: bool
    next_page: str | None = None


class UserActor(Record, frozen=True, kw_only=True, tag_field="type", tag="user_actor"):
    """Somebody who is signed in."""

    email_address: str


class ApiActor(Record, frozen=True, kw_only=True, tag_field="type", tag="api_actor"):
    """Whoever uses a key."""

    api_key_name: str


class LinesOfCode(Record, frozen=True, kw_only=True):
    """Lines that Claude Code wrote and removed."""

    added: int
    removed: int


class CoreMetrics(Record, frozen=True, kw_only=True):
    """What came of using Claude Code."""

    num_sessions: int
    lines_of_code: LinesOfCode
    commits_by_claude_code: int
    pull_requests_by_claude_code: int


class ToolAction(Record, frozen=True, kw_only=True):
    """How often a tool's proposal was taken."""

    accepted: int
    rejected: int


class ToolActions(Record, frozen=True, kw_only=True):
    """How often the proposals of each tool were taken."""

    edit_tool: ToolAction
    multi_edit_tool: ToolAction
    write_tool: ToolAction
    notebook_edit_tool: ToolAction


class CodeRecord(Record, frozen=True, kw_only=True):
    """What an actor did with Claude Code on one day in one kind of terminal.

    `model_breakdown` is left out: its estimated cost is a part of the cost report.
    """

    date: UtcDay
    actor: UserActor | ApiActor
    core_metrics: CoreMetrics
    tool_actions: ToolActions
    organization_id: str | None = None
    customer_type: str | None = None
    terminal_type: str | None = None


# The Dog API


class Measure(Record, frozen=True, kw_only=True):
    """A range in two systems, as text."""

    imperial: str | None = None
    metric: str | None = None


class Image(Record, frozen=True, kw_only=True):
    """A picture."""

    id: str | None = None
    width: int | None = None
    height: int | None = None
    url: str | None = None


class Breed(Record, frozen=True, kw_only=True):
    """An element of the list: only `id` and `name` are certain."""

    id: int
    name: str
    weight: Measure | None = None
    height: Measure | None = None
    life_span: str | None = None
    bred_for: str | None = None
    breed_group: str | None = None
    temperament: str | None = None
    origin: str | None = None
    country_code: str | None = None
    description: str | None = None
    reference_image_id: str | None = None
    image: Image | None = None


class RawBreed(Record, frozen=True, kw_only=True):
    """An element, and the JSON text that it was read from."""

    breed: Breed
    raw: str


# TMDB


class Change(Record, frozen=True, kw_only=True):
    """A changed id; some entries have none."""

    id: int | None
    adult: bool | None = None


class ChangesPage(Record, frozen=True, kw_only=True):
    """A page of `/3/{kind}/changes`."""

    results: list[Change]
    page: int
    total_pages: int
    total_results: int


class Refusal(Record, frozen=True, kw_only=True):
    """TMDB's own words about a request that it did not fulfil."""

    status_code: int


class Credit(Record, frozen=True, kw_only=True):
    """Somebody in a cast, by order of importance."""

    name: str | None = None
    order: int | None = None


class Credits(Record, frozen=True, kw_only=True):
    """Who had a part in a title."""

    cast: list[Credit] = field(default_factory=list)


class Provider(Record, frozen=True, kw_only=True):
    """A service that shows a title."""

    provider_name: str | None = None


class Country(Record, frozen=True, kw_only=True):
    """Where to see a title in one country."""

    flatrate: list[Provider] = field(default_factory=list)
    rent: list[Provider] = field(default_factory=list)
    buy: list[Provider] = field(default_factory=list)


class Countries(Record, frozen=True, kw_only=True):
    """Of all countries, the one whose providers count."""

    us: Country | None = field(default=None, name="US")


class WatchProviders(Record, frozen=True, kw_only=True):
    """Where to see a title."""

    results: Countries | None = None


class Movie(Record, frozen=True, kw_only=True):
    """`/3/movie/{id}` with credits and providers; '' stands for no date."""

    id: int
    adult: bool | None = None
    title: str | None = None
    overview: str | None = None
    poster_path: str | None = None
    popularity: float | None = None
    vote_average: float | None = None
    vote_count: int | None = None
    runtime: int | None = None
    release_date: str | None = None
    credits: Credits | None = None
    watch_providers: WatchProviders | None = field(default=None, name="watch/providers")


class Show(Record, frozen=True, kw_only=True):
    """`/3/tv/{id}` with credits and providers."""

    id: int
    adult: bool | None = None
    name: str | None = None
    overview: str | None = None
    poster_path: str | None = None
    popularity: float | None = None
    vote_average: float | None = None
    vote_count: int | None = None
    first_air_date: str | None = None
    credits: Credits | None = None
    watch_providers: WatchProviders | None = field(default=None, name="watch/providers")


class Work(Record, frozen=True, kw_only=True):
    """A title that a person had a part in: a movie has a title, a show a name."""

    title: str | None = None
    name: str | None = None
    popularity: float | None = None
    vote_count: int | None = None


class Works(Record, frozen=True, kw_only=True):
    """All of them."""

    cast: list[Work] = field(default_factory=list)
    crew: list[Work] = field(default_factory=list)


class Person(Record, frozen=True, kw_only=True):
    """`/3/person/{id}` with works."""

    id: int
    adult: bool | None = None
    name: str | None = None
    also_known_as: list[str] | None = None
    biography: str | None = None
    profile_path: str | None = None
    popularity: float | None = None
    known_for_department: str | None = None
    birthday: str | None = None
    deathday: str | None = None
    place_of_birth: str | None = None
    combined_credits: Works | None = None


type Details = Movie | Show | Person
