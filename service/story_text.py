"""The story of a session as tables for people. Does not choose the content."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from oracle.story import Story


def print_story(story: Story) -> None:
    """Print the tables of a story to stdout; those without a row are left out."""
    from rich.console import Console

    console = Console()
    console.print(f"Session {story.session_id} is {story.status}.", markup=False)
    events = (
        (e.number, f"{e.at:%Y-%m-%d %H:%M:%S}", f"{e.gap_seconds:g}", e.name, e.distinct_id,
         e.properties.get("screen_name") or e.properties.get("current_url"), e.copies)
        for e in story.events
    )  # fmt: skip
    header = ("#", "time (UTC)", "gap (s)", "event", "distinct id", "screen or page", "copies")
    _print(console, "Events", header, events)
    aside = ((e.at, e.name, e.uuid, e.reason) for e in story.set_aside)
    _print(console, "Set aside", ("time (UTC)", "event", "uuid", "reason"), aside)
    ids = ((i.distinct_id, i.user_id, i.user_match) for i in story.distinct_ids)
    _print(console, "Distinct ids", ("distinct id", "user", "matched by"), ids)
    documents = ((d.document_id, d.at, _outcome(d.missed_by_seconds)) for d in story.documents)
    _print(console, "Documents of the user", ("document", "created (UTC)", ""), documents)
    columns = ((c.name, c.value, c.stored, _numbers(c.events)) for c in story.columns)
    _print(console, "Columns", ("column", "computed", "stored", "from events"), columns)


def _outcome(missed_by_seconds: float) -> str:
    return f"missed by {missed_by_seconds:g} s" if missed_by_seconds else "counts"


def _numbers(events: tuple[int, ...]) -> str:
    """The events' numbers, consecutive ones as a range."""
    parts: list[list[int]] = []
    for number in events:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _print(
    console: Console, title: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text("" if each is None else str(each)) for each in row))
    if table.rows:
        console.print(table)
