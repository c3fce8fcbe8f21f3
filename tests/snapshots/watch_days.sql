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
    COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'invite_friends')),
    COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'send_invite_to_event')),
    COUNTIF(EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = 'invite_friends_for_report'))
  ] AS figures
FROM sessions
WHERE session_date BETWEEN @first_day AND @last_day
GROUP BY session_date
ORDER BY session_date
