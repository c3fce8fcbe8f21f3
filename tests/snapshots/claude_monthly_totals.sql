SELECT
  DATE_TRUNC(activity_date, MONTH) AS month,
  COUNT(DISTINCT activity_date) AS days,
  SUM(amount_usd) AS amount_usd
FROM claude_costs
GROUP BY month
ORDER BY month DESC
