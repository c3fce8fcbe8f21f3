SELECT
  COUNT(*) AS row_count,
  COUNTIF(activity_date IS NULL OR organization_id IS NULL) AS null_keys,
  COUNTIF(IFNULL(organization_id != @organization_id, FALSE)) AS other_organizations,
  MIN(activity_date) AS first_day,
  MAX(activity_date) AS last_day,
  COUNT(*) - COUNT(DISTINCT TO_JSON_STRING(STRUCT(activity_date, api_key_id, workspace_id, model))) AS repeated_keys,
  IFNULL(SUM(uncached_input_tokens), 0) AS uncached_input_tokens,
  IFNULL(SUM(output_tokens), 0) AS output_tokens,
  IFNULL(SUM(cache_read_input_tokens), 0) AS cache_read_input_tokens,
  IFNULL(SUM(cache_creation_5m_tokens), 0) AS cache_creation_5m_tokens,
  IFNULL(SUM(cache_creation_1h_tokens), 0) AS cache_creation_1h_tokens,
  IFNULL(SUM(web_search_requests), 0) AS web_search_requests
FROM staging_claude_usage_keys
