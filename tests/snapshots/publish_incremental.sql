BEGIN TRANSACTION;
UPDATE etl_lease_sessions
SET
  published_run_id = @run_id,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM sessions
WHERE session_date IN (DATE '2026-10-04', DATE '2026-10-05', DATE '2026-10-09')
  AND (
    session_id IN (SELECT session_id FROM staging_touched)
    OR session_id IN (SELECT session_id FROM staging_outdated)
  );
INSERT INTO sessions (
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
FROM staging_staged;
INSERT INTO split_ids (session_id, first_at, last_at, row_count, _run_id)
SELECT session_id, first_at, last_at, row_count, @run_id
FROM staging_split;
DELETE FROM ties
WHERE day IN (DATE '2026-10-04', DATE '2026-10-05', DATE '2026-10-09');
INSERT INTO ties (day, distinct_id, tied_id)
SELECT DISTINCT DATE(event_at) AS day, distinct_id, tied_id
FROM staging_projected
WHERE distinct_id IS NOT NULL AND tied_id IS NOT NULL
  AND (reason IS NULL OR reason = 'no_session')
  AND DATE(event_at) IN (DATE '2026-10-04', DATE '2026-10-05', DATE '2026-10-09');
INSERT INTO quarantined_sessions (session_id, first_at, last_at, row_count, _run_id)
SELECT session_id, first_at, last_at, row_count, @run_id
FROM staging_planned
WHERE is_quarantined;
DELETE FROM etl_state_sessions
WHERE TRUE;
INSERT INTO etl_state_sessions (run_id, metrics_version, sessions_created_at, days, users, documents, columns)
SELECT @run_id, @metrics_version, @sessions_created_at, @days, @users, @documents, @columns;
COMMIT TRANSACTION;
