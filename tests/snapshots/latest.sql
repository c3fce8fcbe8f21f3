SELECT session_id
FROM staging_projected
WHERE reason IS NULL AND session_id IN (SELECT session_id FROM staging_found)
GROUP BY session_id
ORDER BY MIN(event_at) DESC, session_id DESC
LIMIT 100
