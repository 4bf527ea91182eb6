-- The tables of qudo. Facts apart from state: qudo_job is written once and removed once; where a
-- job stands is which one of the narrow tables qudo_ready, qudo_scheduled and qudo_lease holds its
-- id. Times are microseconds since 1970, UTC; ids are UUIDv7; claim_rank is minus the priority, so
-- that one ascending key is the order of the claim. For people there are the views qudo_jobs and
-- qudo_exceptions. Names are compared byte by byte (COLLATE "C"): the same on every engine, and
-- faster. Costs nothing on a new database; needs PostgreSQL 13.
--
-- The hot tables are vacuumed early and by number of dead rows, not by share: they are small or
-- short-lived, and every job leaves a dead row in each.

CREATE TABLE qudo_job (
    id UUID NOT NULL PRIMARY KEY,
    queue TEXT COLLATE "C" NOT NULL CHECK (length(queue) <= 100),
    ability TEXT COLLATE "C" NOT NULL CHECK (length(ability) <= 100),
    codec TEXT COLLATE "C" NOT NULL,
    arg BYTEA NOT NULL,
    uniqkey TEXT COLLATE "C",
    priority INTEGER NOT NULL,
    enqueued_at BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE qudo_ready (
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    id UUID NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    PRIMARY KEY (queue, claim_rank, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE qudo_scheduled (
    run_after BIGINT NOT NULL,
    id UUID NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    PRIMARY KEY (run_after, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE UNIQUE INDEX qudo_scheduled_id ON qudo_scheduled (id);

CREATE TABLE qudo_lease (
    id UUID NOT NULL PRIMARY KEY,
    worker UUID NOT NULL,
    claim BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    claim_rank INTEGER NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Who holds a unique key: one row per live job that has one.
CREATE TABLE qudo_unique (
    ability TEXT COLLATE "C" NOT NULL,
    uniqkey TEXT COLLATE "C" NOT NULL CHECK (octet_length(uniqkey) <= 500),
    id UUID NOT NULL,
    PRIMARY KEY (ability, uniqkey)
);

CREATE TABLE qudo_exception_log (
    id UUID NOT NULL PRIMARY KEY,
    job_id UUID NOT NULL,
    ability TEXT COLLATE "C" NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    worker UUID NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    message TEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    discarded INTEGER NOT NULL CHECK (discarded IN (0, 1)),
    redriven_as UUID,
    uniqkey TEXT COLLATE "C",
    priority INTEGER NOT NULL,
    codec TEXT COLLATE "C",
    arg BYTEA
);

CREATE INDEX qudo_exception_log_job ON qudo_exception_log (job_id);

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

CREATE INDEX qudo_job_status_job ON qudo_job_status (job_id);
CREATE INDEX qudo_job_status_finished ON qudo_job_status (finished_at);

CREATE TABLE qudo_reply (
    job_id UUID NOT NULL,
    seq INTEGER NOT NULL,
    codec TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

CREATE INDEX qudo_reply_created ON qudo_reply (created_at);

CREATE TABLE qudo_worker (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
) WITH (fillfactor = 50);

-- The server's clock in microseconds since 1970, UTC; the wall clock, not the transaction's start.
CREATE FUNCTION qudo_now() RETURNS BIGINT LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT $$;

-- Leases ready jobs of one queue in key order and returns them with their facts; one statement.
--
-- The planner is held to index order, because on a table without statistics it answers this with
-- a bitmap scan and a sort of the whole queue. The settings belong to the function and end with
-- it: no session state, so a transaction pooler may stand between. Rows are found by ctid rather
-- than by a second look into the index; they cannot move, because they are locked.
--
-- from_rank and from_id say after which row to start: rows deleted but not vacuumed yet lie at the
-- front, and each claim would step over all of them again.
--
-- The claim may be forgotten in a crash (the rows are ready again, nobody was told otherwise), so
-- its commit does not wait for the disk. The setting is local to the transaction.
CREATE FUNCTION qudo_claim(
    in_queue TEXT, from_rank INTEGER, from_id UUID, abilities TEXT[], leases BIGINT[],
    at_most BIGINT, in_worker UUID, in_claim BIGINT
) RETURNS TABLE (
    id UUID, claim_rank INTEGER, ability TEXT, attempt INTEGER, crashes INTEGER,
    codec TEXT, arg BYTEA, uniqkey TEXT, enqueued_at BIGINT
) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
#variable_conflict use_column
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH picked AS (
        DELETE FROM qudo_ready WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM qudo_ready r
            WHERE r.queue = in_queue AND (r.claim_rank, r.id) > (from_rank, from_id)
              AND r.ability = ANY (abilities)
            ORDER BY r.queue, r.claim_rank, r.id
            LIMIT at_most
            FOR UPDATE SKIP LOCKED))
        RETURNING *
    ), leased AS (
        INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, attempt, crashes)
        SELECT p.id, in_worker, in_claim,
               qudo_now() + leases[array_position(abilities, p.ability)],
               p.queue, p.claim_rank, p.ability, p.attempt + 1, p.crashes
        FROM picked p
    )
    SELECT p.id, p.claim_rank, p.ability, p.attempt, p.crashes, j.codec, j.arg, j.uniqkey, j.enqueued_at
    FROM picked p JOIN qudo_job j ON j.id = p.id;
END
$$;

-- Removes lease and facts of completed jobs whose lease this worker still holds; returns their ids.
CREATE FUNCTION qudo_complete(in_worker UUID, ids UUID[], claims BIGINT[])
RETURNS SETOF UUID LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
BEGIN
    RETURN QUERY
    WITH held AS (
        DELETE FROM qudo_lease l USING unnest(ids, claims) AS x (id, claim)
        WHERE l.id = x.id AND l.claim = x.claim AND l.worker = in_worker
        RETURNING l.id
    )
    DELETE FROM qudo_job j USING held WHERE j.id = held.id RETURNING j.id;
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
    CASE WHEN l.id IS NOT NULL THEN 'running' WHEN s.id IS NOT NULL THEN 'scheduled' ELSE 'ready' END AS state,
    j.priority,
    COALESCE(l.attempt, s.attempt, r.attempt) AS attempt,
    j.uniqkey,
    to_timestamp(j.enqueued_at / 1000000.0) AS enqueued_at,
    to_timestamp(s.run_after / 1000000.0) AS run_after,
    to_timestamp(l.leased_until / 1000000.0) AS leased_until,
    w.name AS worker,
    j.codec,
    CASE WHEN j.codec = 'json' THEN qudo_text(j.arg) END AS arg
FROM qudo_job j
LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id
LEFT JOIN qudo_scheduled s ON s.id = j.id
LEFT JOIN qudo_lease l ON l.id = j.id
LEFT JOIN qudo_worker w ON w.id = l.worker;

CREATE VIEW qudo_exceptions AS
SELECT
    id,
    job_id AS job,
    ability,
    queue,
    attempt,
    kind,
    message,
    to_timestamp(failed_at / 1000000.0) AS failed_at,
    discarded,
    redriven_as
FROM qudo_exception_log;
