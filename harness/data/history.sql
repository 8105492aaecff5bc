-- Every run.
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    workload TEXT NOT NULL,
    model TEXT NOT NULL,
    quant TEXT NOT NULL,
    device TEXT NOT NULL,
    outcome TEXT NOT NULL,
    cell TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created);
CREATE INDEX IF NOT EXISTS runs_by_model ON runs (model, created);
CREATE INDEX IF NOT EXISTS runs_by_cell ON runs (cell) WHERE cell != '';
