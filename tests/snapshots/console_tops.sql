SELECT name, value, sessions
FROM (
(SELECT 'entry_screen' AS name, IFNULL(entry_screen, '') AS value, COUNT(*) AS sessions
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
GROUP BY value
ORDER BY sessions DESC, value
LIMIT 6)
UNION ALL
(SELECT 'channel_type' AS name, IFNULL(channel_type, '') AS value, COUNT(*) AS sessions
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
GROUP BY value
ORDER BY sessions DESC, value
LIMIT 6)
UNION ALL
(SELECT 'country' AS name, IFNULL(country, '') AS value, COUNT(*) AS sessions
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
GROUP BY value
ORDER BY sessions DESC, value
LIMIT 6)
UNION ALL
(SELECT 'lib' AS name, IFNULL(lib, '') AS value, COUNT(*) AS sessions
FROM sessions
WHERE session_date BETWEEN DATE '2026-09-07' AND DATE '2026-10-11'
GROUP BY value
ORDER BY sessions DESC, value
LIMIT 6)
)
ORDER BY name, sessions DESC, value
