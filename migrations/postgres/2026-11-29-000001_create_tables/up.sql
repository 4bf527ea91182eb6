-- The tables of qudo. Facts apart from state: qudo_job is written once and removed once; where a job
-- stands is which one of the narrow tables qudo_ready, qudo_scheduled, qudo_lease and qudo_moving holds
-- its id. Times are microseconds since 1970, UTC; ids are UUIDv7; claim_rank is minus the priority, so
-- that one ascending key is the order of the claim; flags say what lies beside a job in other tables, so
-- that a job with nothing beside it takes the short way. For people there are the views qudo_jobs and
-- qudo_exceptions.
--
-- Names are those of the default: "qudo_" at the beginning of a word stands for the installation's own
-- prefix, behind its schema if it has one, and within a word for the prefix alone.
--
-- Names are compared byte by byte (COLLATE "C"): the same on every engine, and faster. Lengths are looked at
-- by clients, before they ask: the server parses the checks of a table anew for each insert, a twentieth of
-- a single one. Costs nothing on a new database; needs PostgreSQL 13.
--
-- The hot tables are vacuumed early and by number of dead rows, not by share: they are small or
-- short-lived, and every job leaves a dead row in each. Their tail is not given back to the file system:
-- that takes a lock of the table, and the space is needed again a moment later.

CREATE TABLE qudo_job (
    id UUID NOT NULL PRIMARY KEY,
    queue TEXT COLLATE "C" NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    codec TEXT COLLATE "C" NOT NULL,
    arg BYTEA NOT NULL,
    uniqkey TEXT COLLATE "C",
    priority INTEGER NOT NULL,
    enqueued_at BIGINT NOT NULL,
    meta TEXT
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

CREATE TABLE qudo_ready (
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    id UUID NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (queue, claim_rank, id)
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

CREATE TABLE qudo_scheduled (
    run_after BIGINT NOT NULL,
    id UUID NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (run_after, id)
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

CREATE UNIQUE INDEX ix_qudo_scheduled_id ON qudo_scheduled (id);

CREATE TABLE qudo_lease (
    id UUID NOT NULL PRIMARY KEY,
    worker UUID NOT NULL,
    claim BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

-- Who holds a unique key. A key is free when its job is not live and the time until which it is held, if
-- there is one, is over; the row goes with the end of its job, or is swept later.
CREATE TABLE qudo_unique (
    ability TEXT COLLATE "C" NOT NULL,
    uniqkey TEXT COLLATE "C" NOT NULL,
    id UUID NOT NULL,
    held_until BIGINT,
    PRIMARY KEY (ability, uniqkey)
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);

CREATE TABLE qudo_exception_log (
    id UUID NOT NULL PRIMARY KEY,
    job_id UUID NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    worker UUID NOT NULL,
    worker_name TEXT,
    program_version TEXT,
    attempt INTEGER NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    error_class TEXT COLLATE "C",
    message TEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    discarded INTEGER NOT NULL CHECK (discarded IN (0, 1)),
    redriven_as UUID,
    uniqkey TEXT COLLATE "C",
    priority INTEGER NOT NULL,
    codec TEXT COLLATE "C",
    arg BYTEA,
    meta TEXT
);

CREATE INDEX ix_qudo_exception_log_job ON qudo_exception_log (job_id);

CREATE TABLE qudo_job_status (
    id UUID NOT NULL PRIMARY KEY,
    job_id UUID NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    uniqkey TEXT COLLATE "C",
    enqueued_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    message TEXT
);

CREATE INDEX ix_qudo_job_status_job ON qudo_job_status (job_id);
CREATE INDEX ix_qudo_job_status_finished ON qudo_job_status (finished_at);

CREATE TABLE qudo_reply (
    job_id UUID NOT NULL,
    seq INTEGER NOT NULL,
    codec TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

CREATE INDEX ix_qudo_reply_created ON qudo_reply (created_at);

-- Who works, what it serves (JSON arrays of names), and how long it may be silent before others may take
-- its jobs, in microseconds.
CREATE TABLE qudo_worker (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    program_version TEXT,
    abilities TEXT NOT NULL,
    queues TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    dead_after BIGINT NOT NULL
) WITH (fillfactor = 50);

-- What an operator ordered for this database (a row means yes), and the id of this installation.
CREATE TABLE qudo_control (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT,
    changed_at BIGINT NOT NULL
);

-- Jobs on their way from one database to another; a job that is moving is in no other narrow table. leg is
-- leaving, left or gone in the database it goes from, arriving or arrived in the one it goes to.
CREATE TABLE qudo_moving (
    id UUID NOT NULL,
    leg TEXT COLLATE "C" NOT NULL,
    other TEXT COLLATE "C" NOT NULL,
    mover UUID,
    moved_at BIGINT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    run_after BIGINT,
    PRIMARY KEY (id, leg)
);

CREATE INDEX ix_qudo_moving_leg ON qudo_moving (leg, other, id);
CREATE INDEX ix_qudo_moving_gone ON qudo_moving (moved_at);

-- The server's clock in microseconds since 1970, UTC; the wall clock, not the transaction's start. Not
-- extract(), which answers in decimal numbers and costs a lone insert a twenty-fifth of its time. A float
-- holds microseconds exactly enough: rounded they are the same until 2106, and off by 1 for years after.
CREATE FUNCTION qudo_now() RETURNS BIGINT LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::BIGINT $$;

-- For expressions that must not come to an end.
CREATE FUNCTION qudo_refuse(reason TEXT) RETURNS TEXT LANGUAGE plpgsql VOLATILE AS
$$ BEGIN RAISE EXCEPTION 'qudo: %', reason; END $$;

-- Leases ready jobs of one queue in key order and returns them with their facts; one statement.
--
-- The planner is held to index order, because on a table without statistics it answers this with
-- a bitmap scan and a sort of the whole queue. The settings belong to the function and end with
-- it: no session state, so a transaction pooler may stand between. Rows are found by ctid rather
-- than by a second look into the index; they cannot move, because they are locked. Facts are looked
-- up from a subquery that cannot be pulled up: after an ANALYZE at a moment when a table is empty
-- the planner takes it for a table of one row, and would read all of it for each row of a list.
--
-- It begins behind one place and ends with another: rows deleted but not vacuumed yet lie at the
-- front of each rank, and each claim would step over all of them again. "without" are ids that were
-- found without facts.
--
-- The claim may be forgotten in a crash (the rows are ready again, nobody was told otherwise), so
-- its commit does not wait for the disk. The setting is local to the transaction. It looks at the
-- clock before it takes anything, because a server that was stopped may get to it long after its
-- caller left; it compares what it took with what it put; and a ready row without facts rolls it
-- back instead of leaving a lease that nobody runs.
CREATE FUNCTION qudo_claim(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT, not_before BIGINT, not_after BIGINT,
    without UUID[], until_rank INTEGER, until_id UUID
) RETURNS TABLE (
    id UUID, claim_rank INTEGER, ability TEXT, attempt INTEGER, crashes INTEGER, flags INTEGER,
    codec TEXT, arg BYTEA, uniqkey TEXT, meta TEXT, enqueued_at BIGINT
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
#variable_conflict use_column
DECLARE
    asked_at BIGINT := qudo_now();
BEGIN
    IF asked_at NOT BETWEEN not_before AND not_after THEN
        RAISE EXCEPTION 'qudo: too late';
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH picked AS (
        DELETE FROM qudo_ready WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM qudo_ready r
            WHERE r.queue = in_queue AND (r.claim_rank, r.id) > (from_rank, from_id)
              AND (r.claim_rank, r.id) <= (until_rank, until_id)
              AND r.ability = ANY (abilities) AND r.id <> ALL (without)
            ORDER BY r.queue, r.claim_rank, r.id
            LIMIT at_most
            FOR UPDATE SKIP LOCKED))
        RETURNING *
    ), leased AS (
        INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, attempt,
            crashes, flags)
        SELECT p.id, in_worker, in_claim,
               asked_at + leases[array_position(abilities, p.ability)],
               p.queue, p.claim_rank, p.ability, p.attempt + 1, p.crashes, p.flags
        FROM picked p
        RETURNING 1
    )
    SELECT p.id, p.claim_rank, p.ability, p.attempt, p.crashes, p.flags,
           COALESCE(j.codec, qudo_refuse('no facts: ' || p.id)), j.arg, j.uniqkey, j.meta, j.enqueued_at
    FROM picked p LEFT JOIN LATERAL (
        -- OFFSET 0: evaluated once for each row of picked, by the primary key.
        SELECT f.codec, f.arg, f.uniqkey, f.meta, f.enqueued_at FROM qudo_job f WHERE f.id = p.id OFFSET 0
    ) j ON true
    -- Evaluated once. A trigger or a rule may have kept a row out of the table.
    WHERE (SELECT CASE WHEN (SELECT count(*) FROM picked) = (SELECT count(*) FROM leased) THEN 'equal'
        ELSE qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM picked) || ' taken, '
            || (SELECT count(*) FROM leased) || ' put by the step "claim"') END) = 'equal';
END
$$;

-- Removes lease and facts of completed jobs whose lease this worker still holds; returns their ids.
-- Leases are matched with their claims by hash, never by a nested loop, for the reason above.
CREATE FUNCTION qudo_complete(in_worker UUID, ids UUID[], claims BIGINT[])
RETURNS SETOF UUID LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_nestloop = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
BEGIN
    RETURN QUERY
    WITH held AS (
        DELETE FROM qudo_lease l USING unnest(ids, claims) AS x (id, claim)
        WHERE l.id = ANY (ids) AND l.id = x.id AND l.claim = x.claim AND l.worker = in_worker
        RETURNING l.id
    )
    DELETE FROM qudo_job j WHERE j.id = ANY (ARRAY(SELECT h.id FROM held h)) RETURNING j.id;
END
$$;

-- Bytes as text for people; NULL where they are none.
CREATE FUNCTION qudo_text(bytes BYTEA) RETURNS TEXT LANGUAGE plpgsql STABLE AS
$$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE VIEW qudo_jobs AS
SELECT
    j.id,
    j.queue,
    j.ability,
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled'
        WHEN m.id IS NOT NULL THEN 'moving' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt, m.attempt) AS attempt,
    j.uniqkey,
    to_timestamp(j.enqueued_at / 1000000.0) AS enqueued_at,
    to_timestamp(s.run_after / 1000000.0) AS run_after,
    to_timestamp(l.leased_until / 1000000.0) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' OR j.codec LIKE 'json@%' THEN qudo_text(j.arg) END AS arg,
    j.meta
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')
LEFT JOIN qudo_worker w ON w.id = l.worker;

CREATE VIEW qudo_exceptions AS
SELECT
    id,
    job_id AS job,
    ability,
    queue,
    attempt,
    kind,
    error_class,
    message,
    to_timestamp(failed_at / 1000000.0) AS failed_at,
    worker_name AS worker,
    program_version,
    discarded,
    redriven_as
FROM qudo_exception_log;
