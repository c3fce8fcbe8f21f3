SELECT error FROM etl_runs
WHERE run_id = @run_id AND status != 'succeeded'
