SELECT
  session_id, session_date, user_id, user_match, user_signed_up_at, channel_type, events_created,
  checkins_created
FROM sessions
WHERE FALSE
