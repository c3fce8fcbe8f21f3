SELECT
  COUNT(*) AS row_count,
  COUNTIF(activity_date IS NULL OR organization_id IS NULL OR (user_email IS NULL) = (api_key_name IS NULL)) AS null_keys,
  COUNTIF(IFNULL(organization_id != @organization_id, FALSE)) AS other_organizations,
  MIN(activity_date) AS first_day,
  MAX(activity_date) AS last_day,
  IFNULL(SUM(num_sessions), 0) AS num_sessions,
  IFNULL(SUM(lines_added), 0) AS lines_added,
  IFNULL(SUM(lines_removed), 0) AS lines_removed,
  IFNULL(SUM(commits_by_claude_code), 0) AS commits_by_claude_code,
  IFNULL(SUM(pull_requests_by_claude_code), 0) AS pull_requests_by_claude_code
FROM staging_claude_code_productivity
