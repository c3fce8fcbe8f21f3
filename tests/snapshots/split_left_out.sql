DELETE FROM staging_touched
WHERE session_id IN (SELECT session_id FROM staging_split);
DELETE FROM staging_split
WHERE TRUE;
