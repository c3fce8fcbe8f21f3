SELECT day
FROM UNNEST(GENERATE_DATE_ARRAY((SELECT MIN(activity_date) FROM claude_costs), @yesterday)) AS day
WHERE day NOT IN (SELECT activity_date FROM claude_costs)
ORDER BY day
