WITH events AS (
  SELECT
    batch, session_no, event_no, event_at, event, distinct_id, screen_name, current_url, pathname,
    referring_domain, utm_source, utm_medium, utm_campaign, lib, os, device_type, app_version,
    country, city, event_type, scroll_depth, content_depth, touch_y, touch_reach, anonymous_id,
    COUNTIF(event IN ('$pageview', '$screen')) OVER session_events = 0 OR event IN ('$pageview', '$screen') AS is_preferred,
    MIN(IF(event = 'start_quiz', event_no, NULL)) OVER session_events AS quiz_seconds_started_no,
    TIMESTAMP_DIFF(event_at, LAG(event_at) OVER in_order, MICROSECOND) AS gap_microseconds
  FROM staging_batches
  WINDOW
    session_events AS (PARTITION BY batch, session_no),
    in_order AS (PARTITION BY batch, session_no ORDER BY event_no)
),
session_values AS (
  SELECT
    batch, session_no,
    ANY_VALUE(distinct_id HAVING MAX IF(distinct_id IS NOT NULL, event_no, NULL)) AS distinct_id,
    ANY_VALUE(event_at HAVING MIN IF(event_at IS NOT NULL, event_no, NULL)) AS started_at,
    ANY_VALUE(event_at HAVING MAX IF(event_at IS NOT NULL, event_no, NULL)) AS ended_at,
    SUM(IFNULL(LEAST(gap_microseconds, 30000000), 0)) / 1e6 AS engaged_seconds,
    COUNT(*) AS event_count,
    COUNTIF(event = '$pageview') AS pageview_count,
    COUNTIF(event = '$screen') AS screen_count,
    COUNTIF(event = '$autocapture') AS autocapture_count,
    COUNTIF(event = '$rageclick') AS rageclick_count,
    COUNT(DISTINCT screen_name) AS unique_screens,
    COUNT(DISTINCT IF(event = '$pageview', pathname, NULL)) AS unique_pages,
    ANY_VALUE(IF(is_preferred, screen_name, NULL) HAVING MIN IF(is_preferred AND screen_name IS NOT NULL, event_no, NULL)) AS entry_screen,
    ANY_VALUE(IF(is_preferred, screen_name, NULL) HAVING MAX IF(is_preferred AND screen_name IS NOT NULL, event_no, NULL)) AS exit_screen,
    ANY_VALUE(IF(is_preferred, current_url, NULL) HAVING MIN IF(is_preferred AND current_url IS NOT NULL, event_no, NULL)) AS entry_url,
    ANY_VALUE(IF(is_preferred, current_url, NULL) HAVING MAX IF(is_preferred AND current_url IS NOT NULL, event_no, NULL)) AS exit_url,
    ANY_VALUE(IF(is_preferred, referring_domain, NULL) HAVING MIN IF(is_preferred AND referring_domain IS NOT NULL, event_no, NULL)) AS referring_domain,
    ANY_VALUE(IF(is_preferred, utm_source, NULL) HAVING MIN IF(is_preferred AND utm_source IS NOT NULL, event_no, NULL)) AS utm_source,
    ANY_VALUE(IF(is_preferred, utm_medium, NULL) HAVING MIN IF(is_preferred AND utm_medium IS NOT NULL, event_no, NULL)) AS utm_medium,
    ANY_VALUE(IF(is_preferred, utm_campaign, NULL) HAVING MIN IF(is_preferred AND utm_campaign IS NOT NULL, event_no, NULL)) AS utm_campaign,
    ANY_VALUE(lib HAVING MIN IF(lib IS NOT NULL, event_no, NULL)) AS lib,
    ANY_VALUE(os HAVING MIN IF(os IS NOT NULL, event_no, NULL)) AS os,
    ANY_VALUE(device_type HAVING MIN IF(device_type IS NOT NULL, event_no, NULL)) AS device_type,
    ANY_VALUE(app_version HAVING MIN IF(app_version IS NOT NULL, event_no, NULL)) AS app_version,
    ANY_VALUE(country HAVING MIN IF(country IS NOT NULL, event_no, NULL)) AS country,
    ANY_VALUE(city HAVING MIN IF(city IS NOT NULL, event_no, NULL)) AS city,
    MAX(scroll_depth) AS max_scroll_depth,
    MAX(content_depth) AS max_content_depth,
    COUNTIF(((event = '$autocapture' AND IFNULL(event_type IN ('scroll', 'swipe'), FALSE)) OR event = 'scroll')) AS scroll_count,
    COUNTIF(event = '$autocapture' AND touch_y IS NOT NULL) AS touch_count,
    MAX(touch_reach) AS touch_reach,
    COUNTIF(event = 'view_event') > 0 AS viewed_event,
    COUNTIF(event = 'view_event') AS events_viewed,
    COUNTIF(event = 'join_event') > 0 AS joined_event,
    COUNTIF(event = 'join_event') AS events_joined,
    COUNTIF(event IN ('invite_friends', 'send_invite_to_event', 'invite_friends_for_report')) > 0 AS invited_someone,
    COUNTIF(STRPOS(LOWER(event), 'contact') > 0 AND STRPOS(LOWER(event), 'enable') > 0) > 0 AS enabled_contacts,
    COUNTIF(IFNULL(screen_name = 'Discover', FALSE)) > 0 AS visited_discover,
    COUNTIF(event = 'start_quiz') > 0 AS started_quiz,
    COUNTIF(event = 'finish_quiz') > 0 AS completed_quiz,
    TIMESTAMP_DIFF(
      MIN(IF(event = 'finish_quiz' AND event_no >= quiz_seconds_started_no, event_at, NULL)),
      MIN(IF(event = 'start_quiz', event_at, NULL)),
      MICROSECOND
    ) / 1e6 AS quiz_seconds
  FROM events
  GROUP BY batch, session_no
),
session_distinct_ids_values AS (
  SELECT batch, session_no, distinct_id AS value, MAX(event_no) AS last_no
  FROM events
  WHERE distinct_id IS NOT NULL
  GROUP BY batch, session_no, distinct_id
),
session_distinct_ids AS (
  SELECT
    batch, session_no,
    ARRAY_AGG(value ORDER BY last_no) AS distinct_ids
  FROM session_distinct_ids_values
  GROUP BY batch, session_no
),
session_identified_values AS (
  SELECT batch, session_no, anonymous_id AS anonymous_id, distinct_id AS distinct_id
  FROM events
  WHERE anonymous_id IS NOT NULL
    AND distinct_id IS NOT NULL
    AND event = '$identify' AND anonymous_id IS NOT NULL
  GROUP BY batch, session_no, anonymous_id, distinct_id
),
session_identified AS (
  SELECT
    batch, session_no,
    ARRAY_AGG(STRUCT(anonymous_id AS anonymous_id, distinct_id AS distinct_id) ORDER BY anonymous_id, distinct_id) AS identified
  FROM session_identified_values
  GROUP BY batch, session_no
),
session_event_counts_values AS (
  SELECT batch, session_no, event AS value, COUNT(*) AS value_count
  FROM events
  WHERE event IS NOT NULL
  GROUP BY batch, session_no, event
),
session_event_counts AS (
  SELECT
    batch, session_no,
    ARRAY_AGG(STRUCT(value AS event, value_count AS count) ORDER BY value) AS event_counts
  FROM session_event_counts_values
  GROUP BY batch, session_no
)
SELECT
  s.batch, s.session_no,
  s.distinct_id,
  IFNULL(session_distinct_ids.distinct_ids, []) AS distinct_ids,
  IFNULL(session_identified.identified, []) AS identified,
  s.started_at,
  s.ended_at,
  s.engaged_seconds,
  s.event_count,
  IFNULL(session_event_counts.event_counts, []) AS event_counts,
  s.pageview_count,
  s.screen_count,
  s.autocapture_count,
  s.rageclick_count,
  s.unique_screens,
  s.unique_pages,
  s.entry_screen,
  s.exit_screen,
  s.entry_url,
  s.exit_url,
  s.referring_domain,
  s.utm_source,
  s.utm_medium,
  s.utm_campaign,
  s.lib,
  s.os,
  s.device_type,
  s.app_version,
  s.country,
  s.city,
  s.max_scroll_depth,
  s.max_content_depth,
  s.scroll_count,
  s.touch_count,
  s.touch_reach,
  s.viewed_event,
  s.events_viewed,
  s.joined_event,
  s.events_joined,
  s.invited_someone,
  s.enabled_contacts,
  s.visited_discover,
  s.started_quiz,
  s.completed_quiz,
  s.quiz_seconds
FROM session_values AS s
LEFT JOIN session_distinct_ids
  ON session_distinct_ids.batch = s.batch AND session_distinct_ids.session_no = s.session_no
LEFT JOIN session_identified
  ON session_identified.batch = s.batch AND session_identified.session_no = s.session_no
LEFT JOIN session_event_counts
  ON session_event_counts.batch = s.batch AND session_event_counts.session_no = s.session_no
