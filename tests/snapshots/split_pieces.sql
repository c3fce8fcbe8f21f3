DELETE FROM staging_touched
WHERE session_id IN (SELECT session_id FROM staging_split);
INSERT INTO staging_touched (session_id)
SELECT CONCAT(session_id, '/', CAST(DATE(event_at) AS STRING), '/', IFNULL(distinct_id, ''))
FROM staging_projected
WHERE reason IS NULL AND session_id IN (SELECT session_id FROM staging_split)
EXCEPT DISTINCT
SELECT session_id FROM staging_touched;
UPDATE staging_projected
SET session_id = CONCAT(session_id, '/', CAST(DATE(event_at) AS STRING), '/', IFNULL(distinct_id, '')), is_split = TRUE
WHERE reason IS NULL AND session_id IN (SELECT session_id FROM staging_split);
