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
    COUNTIF(quiz_seconds IS NOT NULL)
  ] AS figures
FROM sessions
WHERE session_date BETWEEN @first_day AND @last_day
GROUP BY session_date
ORDER BY session_date
