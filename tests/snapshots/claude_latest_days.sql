SELECT
  'claude_costs' AS table_name, MAX(activity_date) AS latest_day,
  COUNT(DISTINCT activity_date) AS days, COUNT(*) AS row_count
FROM claude_costs
UNION ALL
SELECT
  'claude_usage_keys' AS table_name, MAX(activity_date) AS latest_day,
  COUNT(DISTINCT activity_date) AS days, COUNT(*) AS row_count
FROM claude_usage_keys
UNION ALL
SELECT
  'claude_code_productivity' AS table_name, MAX(activity_date) AS latest_day,
  COUNT(DISTINCT activity_date) AS days, COUNT(*) AS row_count
FROM claude_code_productivity
