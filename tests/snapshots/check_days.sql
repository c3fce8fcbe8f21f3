SELECT DISTINCT d.day AS day
FROM sessions AS s, UNNEST(s._days) AS d
