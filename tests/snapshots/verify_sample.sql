WITH ranked AS (
  SELECT
    session_id, session_date, TO_HEX(MD5(CONCAT(@seed, session_id))) AS draw,
    ROW_NUMBER() OVER (
      PARTITION BY session_date, lib, user_id IS NULL, is_split
      ORDER BY TO_HEX(MD5(CONCAT(@seed, session_id)))
    ) AS choice_no
  FROM sessions
  WHERE session_date BETWEEN @first_day AND @last_day
),
chosen AS (
  SELECT session_id FROM ranked ORDER BY choice_no, draw LIMIT 20
)
SELECT
  session_id, is_split, distinct_id, distinct_ids, identified, user_id, user_match,
  user_signed_up_at, days_since_signup, session_date, started_at, ended_at, duration_seconds,
  engaged_seconds, event_count, event_counts, pageview_count, screen_count, autocapture_count,
  rageclick_count, unique_screens, unique_pages, entry_screen, exit_screen, entry_url, exit_url,
  referring_domain, utm_source, utm_medium, utm_campaign, channel_type, lib, os, device_type,
  app_version, country, city, max_scroll_depth, max_content_depth, scroll_count, touch_count,
  touch_reach, scrolled, viewed_event, events_viewed, joined_event, events_joined, invited_someone,
  enabled_contacts, visited_discover, started_quiz, completed_quiz, quiz_seconds, created_event,
  events_created, checkins_created, is_bounce, is_engaged, _loaded_at, _run_id, _metrics_version,
  _days
FROM sessions
WHERE session_date BETWEEN @first_day AND @last_day
  AND session_id IN (SELECT session_id FROM chosen)
ORDER BY session_id
