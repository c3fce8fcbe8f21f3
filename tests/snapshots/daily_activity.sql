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
activities AS (
  SELECT
    session_date AS activity_date, person_id, user_id, 1 AS session_count,
    duration_seconds, engaged_seconds, event_count, pageview_count, screen_count, autocapture_count,
    rageclick_count, scroll_count, touch_count, events_viewed, events_joined, quiz_seconds,
    0 AS events_created, 0 AS checkins_created
  FROM session_persons
  UNION ALL
  SELECT
    c.day, p.person_id, p.user_id, 0,
    NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL,
    c.events_created, c.checkins_created
  FROM persons AS p, UNNEST(p.creation_days) AS c
)
SELECT
  activity_date,
  person_id,
  user_id,
  SUM(session_count) AS session_count,
  SUM(duration_seconds) AS duration_seconds,
  SUM(engaged_seconds) AS engaged_seconds,
  SUM(event_count) AS event_count,
  SUM(pageview_count) AS pageview_count,
  SUM(screen_count) AS screen_count,
  SUM(autocapture_count) AS autocapture_count,
  SUM(rageclick_count) AS rageclick_count,
  SUM(scroll_count) AS scroll_count,
  SUM(touch_count) AS touch_count,
  SUM(events_viewed) AS events_viewed,
  SUM(events_joined) AS events_joined,
  SUM(quiz_seconds) AS quiz_seconds,
  SUM(events_created) AS events_created,
  SUM(checkins_created) AS checkins_created
FROM activities
GROUP BY activity_date, person_id, user_id
