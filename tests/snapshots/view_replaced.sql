CREATE OR REPLACE VIEW daily_activity AS
SELECT 1 AS session_count
