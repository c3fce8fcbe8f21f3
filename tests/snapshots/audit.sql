WITH planned AS (
  SELECT
    COUNT(*) AS planned,
    COUNTIF(is_quarantined) AS quarantined,
    IFNULL(SUM(row_count), 0) AS planned_rows,
    IFNULL(SUM(IF(is_quarantined, row_count, 0)), 0) AS quarantined_rows
  FROM staging_planned
),
copies AS (
  SELECT session_id, uuid, COUNT(*) AS row_count
  FROM staging_projected
  WHERE reason IS NULL AND session_id IN (SELECT session_id FROM staging_touched)
  GROUP BY session_id, uuid
),
repeats AS (
  SELECT IFNULL(SUM(c.row_count - 1), 0) AS duplicate_rows
  FROM copies AS c
  JOIN staging_planned AS s ON s.session_id = c.session_id
  WHERE NOT s.is_quarantined
),
staged AS (
  SELECT
    COUNT(*) AS staged,
    COUNT(DISTINCT session_id) AS distinct_keys,
    COUNTIF(session_id IS NULL OR session_date IS NULL) AS null_keys,
    COUNTIF(ended_at < started_at) AS backwards
  FROM staging_staged
)
SELECT
  planned.planned, planned.quarantined, planned.planned_rows, planned.quarantined_rows,
  staged.staged, staged.distinct_keys, staged.null_keys, staged.backwards,
  (SELECT COUNT(*) FROM staging_touched) AS touched,
  (
    SELECT COUNT(*) FROM staging_touched AS t
    WHERE NOT EXISTS (SELECT 1 FROM copies AS c WHERE c.session_id = t.session_id)
  ) AS deleted,
  (SELECT COUNT(*) FROM staging_outdated) AS outdated,
  (SELECT duplicate_rows FROM repeats) AS duplicate_rows,
  (SELECT COUNT(*) FROM staging_batches) AS batched_rows,
  (SELECT COUNT(DISTINCT user_id) FROM staging_user_keys) AS users,
  (SELECT COUNTIF(document_id IS NOT NULL OR is_ignored) FROM staging_documents) AS documents,
  (SELECT COUNTIF(is_ignored) FROM staging_documents) AS ignored_documents,
  (SELECT COUNTIF(is_time_unread) FROM staging_user_keys) AS user_times_unread,
  (
    SELECT COUNTIF(is_time_unread AND NOT is_ignored) FROM staging_documents
  ) AS document_times_unread,
  (
    SELECT COUNTIF(document_id IS NULL AND NOT is_ignored) FROM staging_documents
  ) AS incomplete_documents,
  (
    SELECT COUNT(DISTINCT d.user_id)
    FROM staging_documents AS d
    LEFT JOIN staging_user_keys AS u ON u.user_match = 'uid' AND u.key = d.user_id
    WHERE d.document_id IS NOT NULL AND u.key IS NULL
  ) AS creators_unknown,
  (SELECT IFNULL(SUM(event_count), 0) FROM staging_aggregated) AS aggregated_events,
  (
    SELECT MAX(row_at) AS newest_at
    FROM (
      SELECT event_at AS row_at
      FROM staging_projected
      WHERE reason IS NULL
      UNION ALL
      SELECT IF(ended_at <= @now, ended_at, started_at) AS row_at
      FROM sessions
      WHERE session_id NOT IN (SELECT session_id FROM staging_touched)
    )
    WHERE row_at <= @now
  ) AS newest_at
FROM planned, staged
