SELECT
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
    COUNTIF('invite_friends' IN (SELECT e.event FROM UNNEST(event_counts) AS e)),
    COUNTIF('send_invite_to_event' IN (SELECT e.event FROM UNNEST(event_counts) AS e)),
    COUNTIF('invite_friends_for_report' IN (SELECT e.event FROM UNNEST(event_counts) AS e))
  ] AS figures
FROM sessions
WHERE session_date BETWEEN @first_day AND @last_day
GROUP BY session_date
ORDER BY session_date
