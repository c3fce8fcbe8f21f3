SELECT
  COUNT(*) AS row_count,
  COUNTIF(activity_date IS NULL OR organization_id IS NULL OR amount_usd IS NULL) AS null_keys,
  COUNTIF(IFNULL(organization_id != @organization_id, FALSE)) AS other_organizations,
  MIN(activity_date) AS first_day,
  MAX(activity_date) AS last_day,
  COUNTIF(IFNULL(currency != 'USD', TRUE)) AS other_currencies,
  IFNULL(SUM(amount_usd), 0) AS amount_usd
FROM staging_claude_costs
