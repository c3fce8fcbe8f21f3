"""The columns of `sessions` that every PostHog project has. The app's own are in a file. Pure.

The extract's column list, both engines, the BigQuery schema and the data dictionary derive from
these and from those of `config/metrics.yaml`, each by way of its caller.
"""

from __future__ import annotations

from sessions.ids import JUNK_IDS
from sessions.metric_types import (
    Aggregation,
    Bookkeeping,
    Column,
    Creation,
    Derived,
    Enriched,
    Filter,
    Metric,
    MetricTable,
    Property,
    RollUp,
    Tie,
)

_ENGAGED_SECONDS = 10  # PostHog: a session of 10 s or longer is no bounce

PROPERTIES = (
    Property(name="screen_name", names=("$screen_name", "screen_name")),
    Property(name="current_url", names=("$current_url",)),
    Property(name="pathname", names=("$pathname",)),
    Property(name="referring_domain", names=("$referring_domain",)),
    Property(name="utm_source", names=("utm_source",)),
    Property(name="utm_medium", names=("utm_medium",)),
    Property(name="utm_campaign", names=("utm_campaign",)),
    Property(name="lib", names=("$lib",)),
    Property(name="os", names=("$os", "$os_name")),
    Property(name="device_type", names=("$device_type",)),
    Property(name="app_version", names=("$app_version",)),
    Property(name="country", names=("$geoip_country_name", "$geoip_country_code")),
    Property(name="city", names=("$geoip_city_name",)),
    Property(name="event_type", names=("$event_type",)),
    Property(name="scroll_depth", names=("$prev_pageview_max_scroll_percentage",), kind="fraction"),
    Property(
        name="content_depth", names=("$prev_pageview_max_content_percentage",), kind="fraction"
    ),
    Property(name="touch_y", names=("$touch_y", "touch_y"), kind="number"),
    Property(
        name="touch_reach",
        names=("$touch_y", "touch_y"),
        per=("$screen_height", "$viewport_height"),
        kind="fraction",
    ),
    Property(name="anonymous_id", names=("$anon_distinct_id",), kind="id"),
)

PAGEVIEW = Filter(events=("$pageview",))
SCREEN = Filter(events=("$screen",))
VIEWS = (Filter(events=("$pageview", "$screen")),)
AUTOCAPTURE = Filter(events=("$autocapture",))
TOUCH = Filter(events=("$autocapture",), value="touch_y")
SCROLL = (
    Filter(events=("$autocapture",), value="event_type", among=("scroll", "swipe")),
    Filter(events=("scroll",)),
)
IDENTIFY = Filter(events=("$identify",), value="anonymous_id")


def _count(name: str, description: str, *where: Filter) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.COUNT,
        type="INT64",
        description=description,
        where=where,
        roll_up=RollUp.SUM,
    )


def _maximum(name: str, value: str, description: str) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.MAX,
        type="FLOAT64",
        value=value,
        description=description,
        roll_up=RollUp.MAX,
    )


def _distinct(name: str, value: str, description: str, *where: Filter) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.DISTINCT_COUNT,
        type="INT64",
        value=value,
        where=where,
        description=description,
        roll_up=RollUp.MAX,
    )


def _first_known(name: str, description: str) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.FIRST,
        type="STRING",
        value=name,
        description=f"{description}: the first known value in the session.",
        roll_up=RollUp.FIRST_AND_LAST,
    )


def _entry(name: str, value: str, description: str) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.FIRST,
        type="STRING",
        value=value,
        prefer=VIEWS,
        description=f"{description} of the first $pageview or $screen event that has one; "
        "over all events where the session has neither.",
        roll_up=RollUp.FIRST,
    )


def _exit(name: str, value: str, description: str) -> Metric:
    return Metric(
        name=name,
        aggregation=Aggregation.LAST,
        type="STRING",
        value=value,
        prefer=VIEWS,
        description=f"{description} of the last $pageview or $screen event that has one; "
        "over all events where the session has neither.",
        roll_up=RollUp.LAST,
    )


# The order here is the order of the table's columns.
COLUMNS: tuple[Column, ...] = (
    # who
    Bookkeeping(
        name="session_id",
        type="STRING",
        description="PostHog's session id: the key. Of a piece of a split id: "
        "SESSION_ID/YYYY-MM-DD/DISTINCT_ID.",
    ),
    Bookkeeping(
        name="is_split",
        type="BOOL",
        description="Whether the row is a piece of an id that lives too long, or has too many rows,"
        " to be one session's: what one distinct id did under it on one UTC day.",
    ),
    Metric(
        name="distinct_id",
        aggregation=Aggregation.LAST,
        type="STRING",
        value="distinct_id",
        description="PostHog distinct id of the last event that has one.",
        roll_up=RollUp.LAST,
    ),
    Metric(
        name="distinct_ids",
        aggregation=Aggregation.DISTINCT_LIST,
        type="STRING",
        value="distinct_id",
        description="All distinct ids of the session, in order of last use.",
    ),
    Metric(
        name="identified",
        aggregation=Aggregation.DISTINCT_RECORDS,
        type="RECORD",
        where=(IDENTIFY,),
        record=(
            ("anonymous_id", "STRING", "anonymous_id"),
            ("distinct_id", "STRING", "distinct_id"),
        ),
        description="The pairs of anonymous and distinct id that its $identify events tie.",
    ),
    Enriched(
        name="user_id",
        type="STRING",
        description="Firebase user of the distinct id that the session used last, among those that "
        "match one; null for anonymous sessions.",
    ),
    Enriched(
        name="user_match",
        type="STRING",
        description="What the distinct id matched the user by: uid, phone or email.",
    ),
    Enriched(
        name="user_signed_up_at", type="TIMESTAMP", description="When the user was created (UTC)."
    ),
    Derived(
        name="days_since_signup",
        type="INT64",
        sql="GREATEST("
        "0, DIV(TIMESTAMP_DIFF(started_at, user_signed_up_at, MICROSECOND), 86400000000))",
        description="Whole 24-hour periods from sign-up to the session's start, never below 0.",
    ),
    # when
    Derived(
        name="session_date",
        type="DATE",
        sql="DATE(started_at)",
        description="UTC day of `started_at`: the partition.",
    ),
    Metric(
        name="started_at",
        aggregation=Aggregation.FIRST,
        type="TIMESTAMP",
        value="event_at",
        description="Time of the first event (UTC).",
    ),
    Metric(
        name="ended_at",
        aggregation=Aggregation.LAST,
        type="TIMESTAMP",
        value="event_at",
        description="Time of the last event (UTC).",
    ),
    Derived(
        name="duration_seconds",
        type="FLOAT64",
        sql="TIMESTAMP_DIFF(ended_at, started_at, MICROSECOND) / 1e6",
        description="`ended_at` less `started_at`, in seconds with microseconds.",
        roll_up=RollUp.SUM,
    ),
    Metric(
        name="engaged_seconds",
        aggregation=Aggregation.CAPPED_GAP_SUM,
        type="FLOAT64",
        description="Sum of the gaps between consecutive events, each capped at 30 s.",
        roll_up=RollUp.SUM,
    ),
    # volume
    _count("event_count", "Events of the session, repeats left out."),
    Metric(
        name="event_counts",
        aggregation=Aggregation.COUNTS_BY_VALUE,
        type="RECORD",
        value="event",
        record=(("event", "STRING", "event"), ("count", "INT64", "")),
        description="Events by name, in order of the name: every name, declared or not.",
    ),
    _count("pageview_count", "Number of $pageview events.", PAGEVIEW),
    _count("screen_count", "Number of $screen events.", SCREEN),
    _count("autocapture_count", "Number of $autocapture events.", AUTOCAPTURE),
    _count("rageclick_count", "Number of $rageclick events.", Filter(events=("$rageclick",))),
    # where
    _distinct("unique_screens", "screen_name", "Distinct screen names over all events."),
    _distinct("unique_pages", "pathname", "Distinct paths over $pageview events.", PAGEVIEW),
    _entry("entry_screen", "screen_name", "Screen name"),
    _exit("exit_screen", "screen_name", "Screen name"),
    _entry("entry_url", "current_url", "URL"),
    _exit("exit_url", "current_url", "URL"),
    _entry("referring_domain", "referring_domain", "Referring domain"),
    _entry("utm_source", "utm_source", "UTM source"),
    _entry("utm_medium", "utm_medium", "UTM medium"),
    _entry("utm_campaign", "utm_campaign", "UTM campaign"),
    Enriched(
        name="channel_type",
        type="STRING",
        description="Channel by PostHog's own session row; of several the one that ends last.",
        roll_up=RollUp.FIRST,
    ),
    # device
    _first_known("lib", "PostHog SDK"),
    _first_known("os", "Operating system"),
    _first_known("device_type", "Device type"),
    _first_known("app_version", "App version"),
    _first_known("country", "Country by GeoIP, its name or else its code"),
    _first_known("city", "City by GeoIP"),
    # scrolling
    _maximum(
        "max_scroll_depth",
        "scroll_depth",
        "Web: deepest scroll of a page that was left, 0..1 of what can be scrolled.",
    ),
    _maximum(
        "max_content_depth",
        "content_depth",
        "Web: deepest content seen of a page that was left, 0..1 of the page.",
    ),
    _count(
        "scroll_count",
        "Scrolls and swipes captured by the SDK, and events named scroll.",
        *SCROLL,
    ),
    _count("touch_count", "Touches captured with a coordinate.", TOUCH),
    _maximum(
        "touch_reach",
        "touch_reach",
        "How far down the screen, 0..1, the lowest touch was. Says nothing of scrolled content.",
    ),
    Derived(
        name="scrolled",
        type="BOOL",
        sql="scroll_count > 0 OR IFNULL(max_scroll_depth > 0, FALSE)",
        description="`scroll_count` > 0 or `max_scroll_depth` > 0.",
        roll_up=RollUp.EVER,
    ),
    # creation
    Derived(
        name="created_event",
        type="BOOL",
        sql="events_created > 0",
        description="`events_created` > 0.",
    ),
    Enriched(
        name="events_created",
        type="INT64",
        description="Firebase events, check-ins apart, that the user created within the session, "
        "60 s tolerance on both sides.",
    ),
    Enriched(
        name="checkins_created",
        type="INT64",
        description="Firebase check-ins that the user created within the session, 60 s tolerance "
        "on both sides.",
    ),
    # quality
    Derived(
        name="is_bounce",
        type="BOOL",
        sql="CASE WHEN pageview_count + screen_count + autocapture_count > 0 THEN NOT"
        " (pageview_count + screen_count + autocapture_count > 1"
        f" OR TIMESTAMP_DIFF(ended_at, started_at, MICROSECOND) >= {_ENGAGED_SECONDS * 1_000_000})"
        " END",
        description="PostHog's bounce: one page view, screen or autocapture alone, and under 10 s; "
        "null without any of them.",
    ),
    Derived(
        name="is_engaged",
        type="BOOL",
        sql=f"engaged_seconds >= {_ENGAGED_SECONDS} OR pageview_count + screen_count >= 2",
        description="`engaged_seconds` of 10 or more, or at least two page views and screens.",
        roll_up=RollUp.EVER,
    ),
    # bookkeeping
    Bookkeeping(name="_loaded_at", type="TIMESTAMP", description="Start of the run that wrote it."),
    Bookkeeping(name="_run_id", type="STRING", description="The run that wrote the row."),
    Bookkeeping(
        name="_metrics_version",
        type="STRING",
        description="Hash of the metric table and every threshold that the row was built with.",
    ),
    Bookkeeping(
        name="_days",
        type="RECORD",
        record=(
            ("day", "DATE", "day"),
            ("row_count", "INT64", "row_count"),
            ("digest", "INT64", "digest"),
        ),
        description="The valid source rows it was built from by UTC day, repeats included.",
    ),
)

POSTHOG_METRICS = MetricTable(
    columns=COLUMNS,
    properties=PROPERTIES,
    session_id_names=("$session_id", "session_id", "sessionId"),
    engaged_gap_cap_seconds=30,
    longest_session_seconds=3 * 24 * 3600,
    most_session_rows=100_000,
    ingestion_tolerance_seconds=24 * 3600,
    creation_tolerance_seconds=60,
    creation=Creation(checkins=("checkin",)),  # where the file declares no other
    phone_digits=7,
    ties=(
        Tie(events=("$identify",), names=("$anon_distinct_id",)),
        Tie(events=("$create_alias", "$merge_dangerously"), names=("alias",)),
    ),
    junk_ids=JUNK_IDS,
)
