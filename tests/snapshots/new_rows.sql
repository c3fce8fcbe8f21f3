WITH session_rows AS (
  SELECT p.session_id, a.distinct_ids, a.started_at, a.ended_at
  FROM staging_aggregated AS a
  JOIN staging_planned AS p ON p.batch = a.batch AND p.session_no = a.session_no
),
session_ids AS (
  SELECT s.session_id, distinct_id, use_no
  FROM session_rows AS s, UNNEST(s.distinct_ids) AS distinct_id WITH OFFSET AS use_no
  WHERE NOT REGEXP_REPLACE(LOWER(distinct_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
),
ids AS (
  SELECT DISTINCT distinct_id FROM session_ids
),
id_digits AS (
  SELECT
    distinct_id,
    IF(REGEXP_CONTAINS(distinct_id, r'^[0-9-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ]+$|^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$'), REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(IF(REGEXP_CONTAINS(distinct_id, r'^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$'), CAST(SAFE_CAST(SAFE_CAST(distinct_id AS FLOAT64) AS INT64) AS STRING), distinct_id), r'^(\+?[0-9]+)[.]0$', r'\1'), r'([0-9][-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ]*)[(]0[)]', r'\1'), r'[^0-9]', ''), r'^00', ''), NULL) AS phone_digits
  FROM ids
),
id_keys AS (
  SELECT
    distinct_id,
    IF(REGEXP_CONTAINS(phone_digits, r'^[1-9][0-9]{6,}$'), TO_HEX(SHA256(phone_digits)), NULL) AS phone_key,
    TO_HEX(SHA256(LOWER(distinct_id))) AS email_key
  FROM id_digits
),
id_users AS (
  SELECT
    i.distinct_id,
    COALESCE(u.user_id, p.user_id, e.user_id) AS user_id,
    COALESCE(u.user_match, p.user_match, e.user_match) AS user_match,
    CASE
      WHEN u.user_id IS NOT NULL THEN u.signed_up_at
      WHEN p.user_id IS NOT NULL THEN p.signed_up_at
      ELSE e.signed_up_at
    END AS signed_up_at
  FROM id_keys AS i
  LEFT JOIN staging_user_keys AS u ON u.user_match = 'uid' AND u.key = i.distinct_id
  LEFT JOIN staging_user_keys AS p ON p.user_match = 'phone' AND p.key = i.phone_key
  LEFT JOIN staging_user_keys AS e ON e.user_match = 'email' AND e.key = i.email_key
),
session_users AS (
  SELECT
    s.session_id, m.user_id, m.user_match, m.signed_up_at,
    ROW_NUMBER() OVER (PARTITION BY s.session_id ORDER BY s.use_no DESC) AS choice_no
  FROM session_ids AS s
  JOIN id_users AS m ON m.distinct_id = s.distinct_id
  WHERE m.user_id IS NOT NULL
),
session_documents AS (
  SELECT
    s.session_id,
    COUNT(DISTINCT IF(d.is_checkin, NULL, d.document_id)) AS events_created,
    COUNT(DISTINCT IF(d.is_checkin, d.document_id, NULL)) AS checkins_created
  FROM session_rows AS s
  JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  JOIN staging_documents AS d
    ON d.user_id = u.user_id
    AND TIMESTAMP_DIFF(s.started_at, d.created_at, MICROSECOND) <= 60000000
    AND TIMESTAMP_DIFF(d.created_at, s.ended_at, MICROSECOND) <= 60000000
  WHERE d.document_id IS NOT NULL
  GROUP BY s.session_id
),
enriched AS (
  SELECT
    s.session_id, u.user_id, u.user_match, u.signed_up_at AS user_signed_up_at, c.channel_type,
    IFNULL(d.events_created, 0) AS events_created,
    IFNULL(d.checkins_created, 0) AS checkins_created
  FROM session_rows AS s
  LEFT JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  LEFT JOIN session_documents AS d ON d.session_id = s.session_id
  LEFT JOIN staging_channels AS c ON c.session_id = s.session_id
),
complete AS (
  SELECT
    p.session_id, p.is_split, p._days, a.distinct_id, a.distinct_ids, a.identified, a.started_at,
    a.ended_at, a.engaged_seconds, a.event_count, a.event_counts, a.pageview_count, a.screen_count,
    a.autocapture_count, a.rageclick_count, a.unique_screens, a.unique_pages, a.entry_screen,
    a.exit_screen, a.entry_url, a.exit_url, a.referring_domain, a.utm_source, a.utm_medium,
    a.utm_campaign, a.lib, a.os, a.device_type, a.app_version, a.country, a.city,
    a.max_scroll_depth, a.max_content_depth, a.scroll_count, a.touch_count, a.touch_reach,
    a.viewed_event, a.events_viewed, a.joined_event, a.events_joined, a.invited_someone,
    a.enabled_contacts, a.visited_discover, a.started_quiz, a.completed_quiz, a.quiz_seconds,
    e.user_id, e.user_match, e.user_signed_up_at, e.channel_type, e.events_created,
    e.checkins_created
  FROM staging_aggregated AS a
  JOIN staging_planned AS p ON p.batch = a.batch AND p.session_no = a.session_no
  JOIN enriched AS e ON e.session_id = p.session_id
)
SELECT
  session_id,
  is_split,
  distinct_id,
  distinct_ids,
  identified,
  user_id,
  user_match,
  user_signed_up_at,
  GREATEST(0, DIV(TIMESTAMP_DIFF(started_at, user_signed_up_at, MICROSECOND), 86400000000)) AS days_since_signup,
  DATE(started_at) AS session_date,
  started_at,
  ended_at,
  TIMESTAMP_DIFF(ended_at, started_at, MICROSECOND) / 1e6 AS duration_seconds,
  engaged_seconds,
  event_count,
  event_counts,
  pageview_count,
  screen_count,
  autocapture_count,
  rageclick_count,
  unique_screens,
  unique_pages,
  entry_screen,
  exit_screen,
  entry_url,
  exit_url,
  referring_domain,
  utm_source,
  utm_medium,
  utm_campaign,
  channel_type,
  lib,
  os,
  device_type,
  app_version,
  country,
  city,
  max_scroll_depth,
  max_content_depth,
  scroll_count,
  touch_count,
  touch_reach,
  scroll_count > 0 OR IFNULL(max_scroll_depth > 0, FALSE) AS scrolled,
  viewed_event,
  events_viewed,
  joined_event,
  events_joined,
  invited_someone,
  enabled_contacts,
  visited_discover,
  started_quiz,
  completed_quiz,
  quiz_seconds,
  events_created > 0 AS created_event,
  events_created,
  checkins_created,
  CASE WHEN pageview_count + screen_count + autocapture_count > 0 THEN NOT (pageview_count + screen_count + autocapture_count > 1 OR TIMESTAMP_DIFF(ended_at, started_at, MICROSECOND) >= 10000000) END AS is_bounce,
  engaged_seconds >= 10 OR pageview_count + screen_count >= 2 AS is_engaged,
  @now AS _loaded_at,
  @run_id AS _run_id,
  @metrics_version AS _metrics_version,
  _days
FROM complete
