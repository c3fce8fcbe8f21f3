BEGIN TRANSACTION;
UPDATE etl_lease_sessions
SET
  triggers = @triggers,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence;
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM identities
WHERE TRUE;
INSERT INTO identities (
  anonymous_id, user_id, _run_id
)
WITH known_ties AS (
  SELECT DISTINCT distinct_id, tied_id
  FROM ties
  WHERE NOT REGEXP_REPLACE(LOWER(distinct_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
    AND NOT REGEXP_REPLACE(LOWER(tied_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
),
pairs AS (
  SELECT tied_id AS anonymous_id, distinct_id FROM known_ties
  UNION DISTINCT
  SELECT distinct_id, tied_id FROM known_ties
),
session_ids AS (
  SELECT anonymous_id AS distinct_id FROM pairs
  UNION DISTINCT
  SELECT distinct_id FROM pairs
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
)
SELECT p.anonymous_id, MIN(u.user_id) AS user_id, @run_id AS _run_id
FROM pairs AS p
JOIN id_users AS a ON a.distinct_id = p.anonymous_id
JOIN id_users AS u ON u.distinct_id = p.distinct_id
WHERE a.user_id IS NULL AND u.user_id IS NOT NULL
GROUP BY p.anonymous_id
HAVING COUNT(DISTINCT u.user_id) = 1;
DELETE FROM persons
WHERE TRUE;
INSERT INTO persons (
  person_id, user_id, user_signed_up_at, first_seen_at, last_seen_at, session_count, active_days,
  days_since_last_seen, is_churned, returned_day_1, returned_day_7, returned_day_30,
  last_distinct_id, duration_seconds, engaged_seconds, event_count, pageview_count, screen_count,
  autocapture_count, rageclick_count, max_unique_screens, max_unique_pages, first_entry_screen,
  last_exit_screen, first_entry_url, last_exit_url, first_referring_domain, first_utm_source,
  first_utm_medium, first_utm_campaign, first_channel_type, first_lib, last_lib, first_os, last_os,
  first_device_type, last_device_type, first_app_version, last_app_version, first_country,
  last_country, first_city, last_city, max_scroll_depth, max_content_depth, scroll_count,
  touch_count, max_touch_reach, scrolled, viewed_event, events_viewed, joined_event, events_joined,
  invited_someone, enabled_contacts, visited_discover, started_quiz, completed_quiz, quiz_seconds,
  is_engaged, events_created, checkins_created, created_event, creation_days, _loaded_at, _run_id
)
WITH tied_sessions AS (
  SELECT
    s.session_id,
    ANY_VALUE(i.user_id HAVING MAX IF(i.user_id IS NOT NULL, use_no, NULL)) AS user_id,
    ANY_VALUE(used_id HAVING MAX IF(used_id IS NOT NULL, use_no, NULL)) AS distinct_id
  FROM sessions AS s, UNNEST(s.distinct_ids) AS used_id WITH OFFSET AS use_no
  LEFT JOIN identities AS i ON i.anonymous_id = used_id
  WHERE s.user_id IS NULL
    AND NOT REGEXP_REPLACE(LOWER(used_id), r'^[\[\](){}<>\x22\x27\x60]+|[\[\](){}<>\x22\x27\x60]+$', '') IN (
      '', '0', 'anonymous', 'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan',
      'none', 'not_authenticated', 'null', 'object object', 'true', 'undefined', '#n/a',
      '-infinity', '0.0', '00000000-0000-0000-0000-000000000000',
      '00000000000000000000000000000000', 'infinity', 'invalid date', 'n/a', 'na', 'nat', 'nil',
      'object null', 'object promise', 'object undefined', 'unknown'
    )
  GROUP BY s.session_id
),
session_persons AS (
  SELECT
    COALESCE(s.user_id, t.user_id) AS user_id,
    COALESCE(s.user_id, t.user_id, t.distinct_id) AS person_id,
    s.session_id, s.session_date, s.started_at, s.ended_at,
    s.distinct_id, s.duration_seconds, s.engaged_seconds, s.event_count, s.pageview_count,
    s.screen_count, s.autocapture_count, s.rageclick_count, s.unique_screens, s.unique_pages,
    s.entry_screen, s.exit_screen, s.entry_url, s.exit_url, s.referring_domain, s.utm_source,
    s.utm_medium, s.utm_campaign, s.channel_type, s.lib, s.os, s.device_type, s.app_version,
    s.country, s.city, s.max_scroll_depth, s.max_content_depth, s.scroll_count, s.touch_count,
    s.touch_reach, s.scrolled, s.viewed_event, s.events_viewed, s.joined_event, s.events_joined,
    s.invited_someone, s.enabled_contacts, s.visited_discover, s.started_quiz, s.completed_quiz,
    s.quiz_seconds, s.is_engaged
  FROM sessions AS s
  LEFT JOIN tied_sessions AS t ON t.session_id = s.session_id
  WHERE COALESCE(s.user_id, t.user_id, t.distinct_id) IS NOT NULL
),
person_sessions AS (
  SELECT
    user_id, person_id, session_date, started_at, ended_at,
    distinct_id, duration_seconds, engaged_seconds, event_count, pageview_count, screen_count,
    autocapture_count, rageclick_count, unique_screens, unique_pages, entry_screen, exit_screen,
    entry_url, exit_url, referring_domain, utm_source, utm_medium, utm_campaign, channel_type, lib,
    os, device_type, app_version, country, city, max_scroll_depth, max_content_depth, scroll_count,
    touch_count, touch_reach, scrolled, viewed_event, events_viewed, joined_event, events_joined,
    invited_someone, enabled_contacts, visited_discover, started_quiz, completed_quiz, quiz_seconds,
    is_engaged,
    ROW_NUMBER() OVER (PARTITION BY user_id, person_id ORDER BY started_at, session_id)
      AS session_no,
    DATE_DIFF(session_date, MIN(session_date) OVER (PARTITION BY user_id, person_id), DAY)
      AS day_no
  FROM session_persons
),
persons AS (
  SELECT
    user_id, person_id,
    MIN(started_at) AS first_seen_at,
    MAX(ended_at) AS last_seen_at,
    COUNT(*) AS session_count,
    COUNT(DISTINCT session_date) AS active_days,
    DATE_DIFF(@today, MIN(session_date), DAY) AS age_days,
    GREATEST(0, DATE_DIFF(@today, DATE(MAX(ended_at)), DAY)) AS days_since_last_seen,
    COUNTIF(day_no = 1) > 0 AS has_day_1,
    COUNTIF(day_no = 7) > 0 AS has_day_7,
    COUNTIF(day_no = 30) > 0 AS has_day_30,
    ANY_VALUE(distinct_id HAVING MAX IF(distinct_id IS NOT NULL, session_no, NULL)) AS last_distinct_id,
    SUM(duration_seconds) AS duration_seconds,
    SUM(engaged_seconds) AS engaged_seconds,
    SUM(event_count) AS event_count,
    SUM(pageview_count) AS pageview_count,
    SUM(screen_count) AS screen_count,
    SUM(autocapture_count) AS autocapture_count,
    SUM(rageclick_count) AS rageclick_count,
    MAX(unique_screens) AS max_unique_screens,
    MAX(unique_pages) AS max_unique_pages,
    ANY_VALUE(entry_screen HAVING MIN IF(entry_screen IS NOT NULL, session_no, NULL)) AS first_entry_screen,
    ANY_VALUE(exit_screen HAVING MAX IF(exit_screen IS NOT NULL, session_no, NULL)) AS last_exit_screen,
    ANY_VALUE(entry_url HAVING MIN IF(entry_url IS NOT NULL, session_no, NULL)) AS first_entry_url,
    ANY_VALUE(exit_url HAVING MAX IF(exit_url IS NOT NULL, session_no, NULL)) AS last_exit_url,
    ANY_VALUE(referring_domain HAVING MIN IF(referring_domain IS NOT NULL, session_no, NULL)) AS first_referring_domain,
    ANY_VALUE(utm_source HAVING MIN IF(utm_source IS NOT NULL, session_no, NULL)) AS first_utm_source,
    ANY_VALUE(utm_medium HAVING MIN IF(utm_medium IS NOT NULL, session_no, NULL)) AS first_utm_medium,
    ANY_VALUE(utm_campaign HAVING MIN IF(utm_campaign IS NOT NULL, session_no, NULL)) AS first_utm_campaign,
    ANY_VALUE(channel_type HAVING MIN IF(channel_type IS NOT NULL, session_no, NULL)) AS first_channel_type,
    ANY_VALUE(lib HAVING MIN IF(lib IS NOT NULL, session_no, NULL)) AS first_lib,
    ANY_VALUE(lib HAVING MAX IF(lib IS NOT NULL, session_no, NULL)) AS last_lib,
    ANY_VALUE(os HAVING MIN IF(os IS NOT NULL, session_no, NULL)) AS first_os,
    ANY_VALUE(os HAVING MAX IF(os IS NOT NULL, session_no, NULL)) AS last_os,
    ANY_VALUE(device_type HAVING MIN IF(device_type IS NOT NULL, session_no, NULL)) AS first_device_type,
    ANY_VALUE(device_type HAVING MAX IF(device_type IS NOT NULL, session_no, NULL)) AS last_device_type,
    ANY_VALUE(app_version HAVING MIN IF(app_version IS NOT NULL, session_no, NULL)) AS first_app_version,
    ANY_VALUE(app_version HAVING MAX IF(app_version IS NOT NULL, session_no, NULL)) AS last_app_version,
    ANY_VALUE(country HAVING MIN IF(country IS NOT NULL, session_no, NULL)) AS first_country,
    ANY_VALUE(country HAVING MAX IF(country IS NOT NULL, session_no, NULL)) AS last_country,
    ANY_VALUE(city HAVING MIN IF(city IS NOT NULL, session_no, NULL)) AS first_city,
    ANY_VALUE(city HAVING MAX IF(city IS NOT NULL, session_no, NULL)) AS last_city,
    MAX(max_scroll_depth) AS max_scroll_depth,
    MAX(max_content_depth) AS max_content_depth,
    SUM(scroll_count) AS scroll_count,
    SUM(touch_count) AS touch_count,
    MAX(touch_reach) AS max_touch_reach,
    COUNTIF(scrolled) > 0 AS scrolled,
    COUNTIF(viewed_event) > 0 AS viewed_event,
    SUM(events_viewed) AS events_viewed,
    COUNTIF(joined_event) > 0 AS joined_event,
    SUM(events_joined) AS events_joined,
    COUNTIF(invited_someone) > 0 AS invited_someone,
    COUNTIF(enabled_contacts) > 0 AS enabled_contacts,
    COUNTIF(visited_discover) > 0 AS visited_discover,
    COUNTIF(started_quiz) > 0 AS started_quiz,
    COUNTIF(completed_quiz) > 0 AS completed_quiz,
    SUM(quiz_seconds) AS quiz_seconds,
    COUNTIF(is_engaged) > 0 AS is_engaged
  FROM person_sessions
  GROUP BY user_id, person_id
),
user_days AS (
  SELECT
    user_id, DATE(created_at) AS day,
    COUNTIF(NOT is_checkin) AS events_created, COUNTIF(is_checkin) AS checkins_created
  FROM staging_documents
  WHERE document_id IS NOT NULL
  GROUP BY user_id, day
),
user_creations AS (
  SELECT
    user_id, SUM(events_created) AS events_created, SUM(checkins_created) AS checkins_created,
    ARRAY_AGG(STRUCT(
      day AS day, events_created AS events_created, checkins_created AS checkins_created
    ) ORDER BY day) AS creation_days
  FROM user_days
  GROUP BY user_id
)
SELECT
  p.person_id,
  p.user_id,
  u.signed_up_at AS user_signed_up_at,
  p.first_seen_at,
  p.last_seen_at,
  p.session_count,
  p.active_days,
  p.days_since_last_seen,
  p.days_since_last_seen >= 14 AS is_churned,
  IF(p.has_day_1 OR p.age_days > 1, p.has_day_1, NULL) AS returned_day_1,
  IF(p.has_day_7 OR p.age_days > 7, p.has_day_7, NULL) AS returned_day_7,
  IF(p.has_day_30 OR p.age_days > 30, p.has_day_30, NULL) AS returned_day_30,
  p.last_distinct_id,
  p.duration_seconds,
  p.engaged_seconds,
  p.event_count,
  p.pageview_count,
  p.screen_count,
  p.autocapture_count,
  p.rageclick_count,
  p.max_unique_screens,
  p.max_unique_pages,
  p.first_entry_screen,
  p.last_exit_screen,
  p.first_entry_url,
  p.last_exit_url,
  p.first_referring_domain,
  p.first_utm_source,
  p.first_utm_medium,
  p.first_utm_campaign,
  p.first_channel_type,
  p.first_lib,
  p.last_lib,
  p.first_os,
  p.last_os,
  p.first_device_type,
  p.last_device_type,
  p.first_app_version,
  p.last_app_version,
  p.first_country,
  p.last_country,
  p.first_city,
  p.last_city,
  p.max_scroll_depth,
  p.max_content_depth,
  p.scroll_count,
  p.touch_count,
  p.max_touch_reach,
  p.scrolled,
  p.viewed_event,
  p.events_viewed,
  p.joined_event,
  p.events_joined,
  p.invited_someone,
  p.enabled_contacts,
  p.visited_discover,
  p.started_quiz,
  p.completed_quiz,
  p.quiz_seconds,
  p.is_engaged,
  IFNULL(c.events_created, 0) AS events_created,
  IFNULL(c.checkins_created, 0) AS checkins_created,
  IFNULL(c.events_created, 0) > 0 AS created_event,
  IFNULL(c.creation_days, []) AS creation_days,
  @now AS _loaded_at,
  @run_id AS _run_id
FROM persons AS p
LEFT JOIN user_creations AS c ON c.user_id = p.user_id
LEFT JOIN staging_user_keys AS u ON u.user_match = 'uid' AND u.key = p.user_id;
COMMIT TRANSACTION;
SELECT
  ARRAY(
    SELECT AS STRUCT
      session_date AS day,
      [
        COUNT(*),
        COUNTIF(user_id IS NOT NULL),
        COUNTIF(viewed_event),
        COUNTIF(events_viewed > 0),
        COUNTIF(joined_event),
        COUNTIF(events_joined > 0),
        COUNTIF(invited_someone),
        COUNTIF(enabled_contacts),
        COUNTIF(visited_discover),
        COUNTIF(started_quiz),
        COUNTIF(completed_quiz),
        COUNTIF(quiz_seconds IS NOT NULL),
        COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'invite_friends')),
        COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'send_invite_to_event')),
        COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'invite_friends_for_report'))
      ] AS figures
    FROM sessions
    WHERE session_date BETWEEN @first_day AND @last_day
    GROUP BY session_date
    ORDER BY session_date
  ) AS watched_days,
  (SELECT COUNT(*) FROM persons) AS persons,
  (SELECT COUNT(*) FROM identities) AS identities,
  COUNT(*) - (SELECT IFNULL(SUM(session_count), 0) FROM persons) AS sessions_without_person,
  (SELECT IFNULL(SUM(session_count), 0) FROM persons) AS sessions_of_persons,
  (SELECT IFNULL(SUM(IF(user_id IS NULL, 0, session_count)), 0) FROM persons) AS sessions_of_users
FROM sessions;
