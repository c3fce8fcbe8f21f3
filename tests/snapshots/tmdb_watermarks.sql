SELECT kind, watermark
FROM etl_state_tmdb_changes
