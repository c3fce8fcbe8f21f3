SELECT
  (SELECT COUNT(*) FROM persons) AS persons,
  (SELECT COUNT(*) FROM identities) AS identities,
  COUNTIF(user_id IS NULL AND distinct_id IS NULL) AS sessions_without_person
FROM sessions
