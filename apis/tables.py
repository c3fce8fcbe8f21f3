"""The tables that jobs fill from APIs, as records. Pure: nothing here knows a client."""

from __future__ import annotations

from typing import Final

from bigquery.tables import Field, TableSchema

__all__ = [
    "CLAUDE_TABLES",
    "CODE",
    "COSTS",
    "DOG_BREEDS",
    "DOG_BREEDS_STAGED",
    "TMDB_STATE",
    "USAGE",
    "Field",
    "TableSchema",
]

_DAY: Final = Field(name="activity_date", type="DATE", description="UTC day.")
_ORGANIZATION: Final = Field(
    name="organization_id", type="STRING", description="Anthropic's id of the organization."
)
_LOADED: Final = Field(
    name="ingestion_timestamp", type="TIMESTAMP", description="Start of the run that wrote it."
)


def _count(name: str, description: str) -> Field:
    return Field(name=name, type="INT64", description=description)


def _text(name: str, description: str) -> Field:
    return Field(name=name, type="STRING", description=description)


COSTS: Final = TableSchema(
    fields=(
        _DAY,
        _ORGANIZATION,
        _text("workspace_id", "Workspace; null for the default one."),
        _text("model", "Model; null where the cost is of no model."),
        _text("token_type", "Kind of tokens; null where the cost is of none."),
        _text("cost_type", "tokens, web_search, code_execution or session_usage."),
        Field(name="amount_usd", type="NUMERIC", description="Cost in dollars."),
        _text("currency", "Currency of the amount: USD."),
        _text("description", "What was paid for, in Anthropic's words."),
        _text("service_tier", "Service tier; null where there is none."),
        _text("context_window", "Context window; null where there is none."),
        _LOADED,
    ),
    description="What Claude cost: a row per result of Anthropic's cost report.",
    partitioned_by="activity_date",
    clustered_by=("workspace_id", "model"),
)

USAGE: Final = TableSchema(
    fields=(
        _DAY,
        _ORGANIZATION,
        _text("api_key_id", "Key; null for the Workbench."),
        _text("workspace_id", "Workspace; null for the default one."),
        _text("model", "Model."),
        _count("uncached_input_tokens", "Input tokens that no cache held."),
        _count("output_tokens", "Output tokens."),
        _count("cache_read_input_tokens", "Input tokens read from caches."),
        _count("cache_creation_5m_tokens", "Tokens written into caches for 5 minutes."),
        _count("cache_creation_1h_tokens", "Tokens written into caches for an hour."),
        _count("web_search_requests", "Web searches."),
        _LOADED,
    ),
    description="Use of Claude by day, key, workspace and model: their combination is the key.",
    partitioned_by="activity_date",
    clustered_by=("api_key_id", "model"),
)

CODE: Final = TableSchema(
    fields=(
        _DAY,
        _ORGANIZATION,
        _text("actor_type", "user_actor or api_actor."),
        _text("user_email", "Who, where it is a user."),
        _text("api_key_name", "Which key, where it is none."),
        _text("terminal_type", "Kind of terminal."),
        _text("customer_type", "api or subscription."),
        _count("num_sessions", "Sessions."),
        _count("lines_added", "Lines of code added."),
        _count("lines_removed", "Lines of code removed."),
        _count("commits_by_claude_code", "Commits."),
        _count("pull_requests_by_claude_code", "Pull requests."),
        *(
            _count(f"{tool}_{outcome}", f"Proposals of the {tool.replace('_', ' ')} {outcome}.")
            for tool in ("edit_tool", "multi_edit_tool", "write_tool", "notebook_edit_tool")
            for outcome in ("accepted", "rejected")
        ),
        _LOADED,
    ),
    description="What was done with Claude Code; there may be several rows per actor and day. "
    "It has no cost: that is in claude_costs.",
    partitioned_by="activity_date",
    clustered_by=("user_email",),
)

CLAUDE_TABLES: Final = {
    "claude_costs": COSTS,
    "claude_usage_keys": USAGE,
    "claude_code_productivity": CODE,
}

_BREED: Final = (
    Field(name="id", type="INT64", description="The Dog API's id of the breed: the key."),
    _text("name", "Name of the breed."),
    Field(name="weight_kg_min", type="FLOAT64", description="Least usual weight in kilograms."),
    Field(name="weight_kg_max", type="FLOAT64", description="Greatest usual weight in kilograms."),
    Field(name="height_cm_min", type="FLOAT64", description="Least usual height in centimetres."),
    Field(name="height_cm_max", type="FLOAT64", description="Greatest usual height likewise."),
    Field(name="life_span_years_min", type="FLOAT64", description="Least usual age in years."),
    Field(name="life_span_years_max", type="FLOAT64", description="Greatest usual age in years."),
    Field(
        name="temperaments",
        type="STRING",
        is_repeated=True,
        description="Temperaments, in the API's order.",
    ),
    _text("bred_for", "What it was bred for."),
    _text("breed_group", "Group of breeds."),
    _text("origin", "Where it comes from."),
    _text("country_code", "Code of the country."),
    _text("description", "Description."),
    _text("reference_image_id", "Id of a picture."),
    _text("image_url", "Address of the picture."),
    _count("image_width", "Its width in pixels."),
    _count("image_height", "Its height in pixels."),
)

DOG_BREEDS: Final = TableSchema(
    fields=(
        *_BREED,
        Field(name="raw", type="JSON", description="The whole element as the API gave it."),
        _LOADED,
    ),
    description="Every breed of The Dog API as of the last run.",
)

# A Parquet file can't be loaded into a JSON column: the text travels, and is parsed on the way in.
DOG_BREEDS_STAGED: Final = TableSchema(
    fields=(*_BREED, _text("raw", "The whole element as text."), _LOADED),
    description="Breeds of one run.",
)

TMDB_STATE: Final = TableSchema(
    fields=(
        _text("kind", "tv, movie or person: the key."),
        Field(
            name="watermark",
            type="DATE",
            description="The last day of changes (UTC) of which every id is done.",
        ),
        _text("run_id", "The run that got there."),
    ),
    description="How far the changes of TMDB are in Redis: a row per kind.",
)
