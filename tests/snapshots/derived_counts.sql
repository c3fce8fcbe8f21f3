SELECT
  (SELECT COUNT(*) FROM persons) AS persons,
  (SELECT COUNT(*) FROM identities) AS identities,
  COUNT(*) - (SELECT IFNULL(SUM(session_count), 0) FROM persons) AS sessions_without_person
FROM sessions
