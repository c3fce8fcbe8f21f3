BEGIN TRANSACTION;
UPDATE etl_lease_claude_usage
SET
  published_run_id = @run_id,
  triggers = @triggers,
  expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE);
ASSERT @@row_count = 1 AS 'the lease was lost';
DELETE FROM claude_costs
WHERE activity_date >= DATE '2026-10-14' AND activity_date < DATE '2026-10-21';
INSERT INTO claude_costs (
  activity_date, organization_id, workspace_id, model, token_type, cost_type, amount_usd, currency,
  description, service_tier, context_window, ingestion_timestamp
)
SELECT
  activity_date, organization_id, workspace_id, model, token_type, cost_type, amount_usd, currency,
  description, service_tier, context_window, ingestion_timestamp
FROM staging_claude_costs;
DELETE FROM claude_usage_keys
WHERE activity_date >= DATE '2026-10-14' AND activity_date < DATE '2026-10-21';
INSERT INTO claude_usage_keys (
  activity_date, organization_id, api_key_id, workspace_id, model, uncached_input_tokens,
  output_tokens, cache_read_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens,
  web_search_requests, ingestion_timestamp
)
SELECT
  activity_date, organization_id, api_key_id, workspace_id, model, uncached_input_tokens,
  output_tokens, cache_read_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens,
  web_search_requests, ingestion_timestamp
FROM staging_claude_usage_keys;
DELETE FROM claude_code_productivity
WHERE activity_date >= DATE '2026-10-14' AND activity_date < DATE '2026-10-21';
INSERT INTO claude_code_productivity (
  activity_date, organization_id, actor_type, user_email, api_key_name, terminal_type,
  customer_type, num_sessions, lines_added, lines_removed, commits_by_claude_code,
  pull_requests_by_claude_code, edit_tool_accepted, edit_tool_rejected, multi_edit_tool_accepted,
  multi_edit_tool_rejected, write_tool_accepted, write_tool_rejected, notebook_edit_tool_accepted,
  notebook_edit_tool_rejected, ingestion_timestamp
)
SELECT
  activity_date, organization_id, actor_type, user_email, api_key_name, terminal_type,
  customer_type, num_sessions, lines_added, lines_removed, commits_by_claude_code,
  pull_requests_by_claude_code, edit_tool_accepted, edit_tool_rejected, multi_edit_tool_accepted,
  multi_edit_tool_rejected, write_tool_accepted, write_tool_rejected, notebook_edit_tool_accepted,
  notebook_edit_tool_rejected, ingestion_timestamp
FROM staging_claude_code_productivity;
COMMIT TRANSACTION;
