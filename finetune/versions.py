"""How the tables of the record came to be what they are, step by step; `finetune.schema` says what their rows mean."""

VERSIONS = (
    """
CREATE TABLE IF NOT EXISTS datasets (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL,
    folder TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, dataset TEXT NOT NULL REFERENCES datasets(id),
    config TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, started REAL, ended REAL,
    step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, pid INTEGER, pid_started REAL,
    stop INTEGER NOT NULL DEFAULT 0, code TEXT, reason TEXT, result TEXT NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS runs_by_state ON runs(state, created);
CREATE TABLE IF NOT EXISTS events (
    run TEXT NOT NULL REFERENCES runs(id), seq INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (run, seq));
""",
    """
ALTER TABLE runs DROP COLUMN stop;
ALTER TABLE runs ADD COLUMN asked TEXT;
ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN claimer INTEGER;
ALTER TABLE runs ADD COLUMN claimer_started REAL;
ALTER TABLE runs ADD COLUMN beat INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET seconds = MAX(0, ended - started) WHERE ended IS NOT NULL AND started IS NOT NULL;
""",
    """
CREATE TABLE votes (
    id TEXT PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(id), owner TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX votes_by_run ON votes(run);
""",
    "ALTER TABLE runs ADD COLUMN split TEXT;",
    """
ALTER TABLE datasets ADD COLUMN parent TEXT;
ALTER TABLE datasets ADD COLUMN family TEXT;
ALTER TABLE datasets ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE datasets ADD COLUMN author TEXT NOT NULL DEFAULT '';
""",
    """
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
    created REAL NOT NULL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, request TEXT NOT NULL, said TEXT NOT NULL,
    run TEXT, error TEXT, ended REAL, claimer INTEGER, claimer_started REAL);
CREATE INDEX jobs_by_run ON jobs(run);
CREATE TABLE keys (sha256 TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL);
""",
    "ALTER TABLE runs ADD COLUMN lineage TEXT;",
    # A run began without a setting that came later, whatever its default is today.
    "UPDATE runs SET config = json_insert(config, '$.base_kl', 0.0);",
    "ALTER TABLE runs ADD COLUMN sweep REAL;",
    """
ALTER TABLE runs ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN address TEXT NOT NULL DEFAULT '';
CREATE TABLE server (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO server SELECT 'turns', COALESCE(MAX(turn), 0) FROM runs;
CREATE TABLE recovery (sha256 TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL);
""",
    "ALTER TABLE runs ADD COLUMN job TEXT;",
    """
CREATE TABLE people (
    owner TEXT PRIMARY KEY, nickname TEXT NOT NULL, compared TEXT NOT NULL UNIQUE, joined REAL NOT NULL);
CREATE TABLE shown (run TEXT PRIMARY KEY REFERENCES runs(id));
""",
)
"""What each version of the record adds to the one before; SQLite's `user_version` counts those done."""
