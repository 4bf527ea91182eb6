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

CREATE INDEX ix_qudo_exception_log_job ON qudo_exception_log (job_id, id);
CREATE INDEX ix_qudo_exception_log_discarded ON qudo_exception_log (discarded, id) WHERE discarded = 1;

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

CREATE INDEX ix_qudo_job_status_job ON qudo_job_status (job_id, id);
CREATE INDEX ix_qudo_job_status_finished ON qudo_job_status (finished_at);

-- What a job left for those who wait for it: its replies from seq 0 on, or, of one that nobody ran to its end,
-- a tombstone: seq -1, and how it ended in the place of the codec.
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
-- its jobs, in microseconds. schema_level is the number of migrations that its program carries.
CREATE TABLE qudo_worker (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    program_version TEXT,
    abilities TEXT NOT NULL,
    queues TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    schema_level INTEGER NOT NULL,
    dead_after BIGINT NOT NULL
) WITH (fillfactor = 50);

-- What an operator ordered for this database (a row means yes), and the id of this installation.
CREATE TABLE qudo_control (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT,
    changed_at BIGINT NOT NULL
);

-- Jobs on their way from one database to another; a job that is moving is in no other narrow table. leg is
-- leaving, left or gone in the database it goes from, arriving, arrived or cancelled in the one it goes to; departure
-- tells each time that a job leaves from the others.
CREATE TABLE qudo_moving (
    id UUID NOT NULL,
    leg TEXT COLLATE "C" NOT NULL,
    other TEXT COLLATE "C" NOT NULL,
    departure UUID NOT NULL,
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

-- Stores ready jobs of one kind, without keys and metadata: what they share is sent once. Returns how many it
-- stored, 0 outside of the window. Two statements, because rows that one hands to the next, and counts, cost a
-- sixth of a bulk insert; each tells how many rows it put, so that a trigger that keeps one out is noticed.
CREATE FUNCTION qudo_insert(
    in_ids UUID[], in_args BYTEA[], in_ability TEXT, in_queue TEXT, in_codec TEXT, in_priority INTEGER,
    not_before BIGINT, not_after BIGINT
) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    now_at BIGINT := qudo_now();
    facts BIGINT;
    places BIGINT;
BEGIN
    IF now_at NOT BETWEEN not_before AND not_after THEN
        RETURN 0;
    END IF;
    INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, enqueued_at)
    SELECT x.id, in_ability, in_queue, in_codec, x.arg, in_priority, now_at
    FROM unnest(in_ids, in_args) AS x (id, arg);
    GET DIAGNOSTICS facts = ROW_COUNT;
    INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
    SELECT in_queue, -in_priority, x.id, in_ability, 0, 0, 0 FROM unnest(in_ids) AS x (id);
    GET DIAGNOSTICS places = ROW_COUNT;
    IF facts <> cardinality(in_ids) OR places <> facts THEN
        PERFORM qudo_refuse('rows do not add up: ' || facts || ' facts, ' || places
            || ' places put by the step "insert"');
    END IF;
    RETURN places;
END
$$;

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
-- caller left; a ready row without facts rolls it back instead of leaving a lease that nobody runs; and
-- where a trigger or a rule may keep a lease out of its table, it compares what it took with what it put.
-- Elsewhere PostgreSQL stores what a statement says or fails, and to count costs a tenth of the claim.
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
    -- Without a CASE where all abilities agree, which is cheaper a row.
    lease BIGINT := CASE WHEN cardinality(leases) = 1 THEN leases[1] END;
    may_lose_rows BOOLEAN := COALESCE((SELECT c.relhastriggers OR c.relhasrules FROM pg_catalog.pg_class c
        WHERE c.oid = to_regclass('qudo_lease')), true);
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
               asked_at + COALESCE(lease, leases[array_position(abilities, p.ability)]),
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
    -- Evaluated once.
    WHERE NOT may_lose_rows OR (SELECT CASE WHEN (SELECT count(*) FROM picked) = (SELECT count(*) FROM leased) THEN 'equal'
        ELSE qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM picked) || ' taken, '
            || (SELECT count(*) FROM leased) || ' put by the step "claim"') END) = 'equal';
END
$$;

-- The end of a run removes its lease, and as a rule its facts. Rows are given as lists of ids, and as runs: ids
-- of one claim after the other, between whose first and last lies no other id of that claim. A run is removed
-- by its ends, which costs half of looking up each id; but other rows may lie in between, so a run is looked at
-- first, and where there is too much else its ids are a list. Leases and lists are matched by hash, never by a
-- nested loop, for the reason above.

-- Removes leases that this worker holds under these claims; fails, and changes nothing, unless all are held.
--
-- Locking: leases, in the order of the runs and then of the list; what others take back they pass over.
CREATE FUNCTION qudo_take(
    in_worker UUID, ids UUID[], claims BIGINT[], run_ids UUID[], run_lengths INTEGER[], run_claims BIGINT[]
) RETURNS VOID LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_nestloop = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
DECLARE
    at INTEGER := 0;
    wanted INTEGER;
    taken INTEGER;
    first_id UUID;
    last_id UUID;
BEGIN
    FOR r IN 1 .. cardinality(run_lengths) LOOP
        wanted := run_lengths[r];
        first_id := run_ids[at + 1];
        last_id := run_ids[at + wanted];
        IF (SELECT count(*) FROM (SELECT FROM qudo_lease l WHERE l.id BETWEEN first_id AND last_id
            LIMIT 2 * wanted) near) < 2 * wanted THEN
            DELETE FROM qudo_lease l WHERE l.id BETWEEN first_id AND last_id
            AND l.worker = in_worker AND l.claim = run_claims[r];
        ELSE
            DELETE FROM qudo_lease l WHERE l.id = ANY (run_ids[at + 1 : at + wanted])
            AND l.worker = in_worker AND l.claim = run_claims[r];
        END IF;
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> wanted THEN
            RAISE EXCEPTION 'qudo: not all leases are held';
        END IF;
        at := at + wanted;
    END LOOP;
    IF cardinality(ids) > 0 THEN
        DELETE FROM qudo_lease l USING unnest(ids, claims) AS x (id, claim)
        WHERE l.id = ANY (ids) AND l.id = x.id AND l.claim = x.claim AND l.worker = in_worker;
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> cardinality(ids) THEN
            RAISE EXCEPTION 'qudo: not all leases are held';
        END IF;
    END IF;
END
$$;

-- Removes the facts of jobs that are gone; returns how many had none.
--
-- Of a run the ids that were removed are compared with those that were meant: a job may have been stored in
-- between since the look at it. Then it fails, and changes nothing.
CREATE FUNCTION qudo_remove(ids UUID[], run_ids UUID[], run_lengths INTEGER[])
RETURNS BIGINT LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_nestloop = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
DECLARE
    at INTEGER := 0;
    wanted INTEGER;
    counted INTEGER;
    missing BIGINT := 0;
    first_id UUID;
    last_id UUID;
    removed UUID[];
BEGIN
    FOR r IN 1 .. cardinality(run_lengths) LOOP
        wanted := run_lengths[r];
        first_id := run_ids[at + 1];
        last_id := run_ids[at + wanted];
        IF (SELECT count(*) FROM (SELECT FROM qudo_job j WHERE j.id BETWEEN first_id AND last_id
            LIMIT wanted + 1) near) = wanted THEN
            WITH gone AS (DELETE FROM qudo_job j WHERE j.id BETWEEN first_id AND last_id RETURNING j.id)
            SELECT array_agg(g.id) INTO removed FROM gone g;
            IF removed IS DISTINCT FROM run_ids[at + 1 : at + wanted] THEN
                RAISE EXCEPTION 'qudo: not all leases are held: a job came in between';
            END IF;
        ELSE
            DELETE FROM qudo_job j WHERE j.id = ANY (run_ids[at + 1 : at + wanted]);
            GET DIAGNOSTICS counted = ROW_COUNT;
            missing := missing + wanted - counted;
        END IF;
        at := at + wanted;
    END LOOP;
    IF cardinality(ids) > 0 THEN
        DELETE FROM qudo_job j WHERE j.id = ANY (ids);
        GET DIAGNOSTICS counted = ROW_COUNT;
        missing := missing + cardinality(ids) - counted;
    END IF;
    RETURN missing;
END
$$;

-- Ends runs that completed and brought nothing, all or none; returns how many jobs had no facts.
CREATE FUNCTION qudo_complete(
    in_worker UUID, ids UUID[], claims BIGINT[], run_ids UUID[], run_lengths INTEGER[], run_claims BIGINT[]
) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    PERFORM qudo_take(in_worker, ids, claims, run_ids, run_lengths, run_claims);
    RETURN qudo_remove(ids, run_ids, run_lengths);
END
$$;

-- Ends runs of every kind, all or none; returns how many of the jobs that are gone had no facts. What they bring
-- is written with it: jobs that run again, and in how many microseconds; rows of the exception log, which read
-- of the job what they say of it, so that no argument travels back; replies, rows of the history, and unique
-- keys that are free again, in their order.
--
-- Locking: leases, then facts, then keys in their order. OFFSET 0 holds the planner to one look by the whole key
-- for each.
CREATE FUNCTION qudo_settle(
    in_worker UUID, ids UUID[], claims BIGINT[], run_ids UUID[], run_lengths INTEGER[], run_claims BIGINT[],
    gone UUID[], gone_run_ids UUID[], gone_run_lengths INTEGER[],
    again_ids UUID[], again_queues TEXT[], again_ranks INTEGER[], again_abilities TEXT[],
    again_attempts INTEGER[], again_crashes INTEGER[], again_flags INTEGER[], again_after BIGINT[],
    log_ids UUID[], log_jobs UUID[], log_attempts INTEGER[], log_kinds TEXT[], log_classes TEXT[],
    log_messages TEXT[], log_names TEXT[], log_versions TEXT[], log_discarded INTEGER[],
    reply_jobs UUID[], reply_seqs INTEGER[], reply_codecs TEXT[], reply_bodies BYTEA[],
    status_ids UUID[], status_jobs UUID[], status_abilities TEXT[], status_texts TEXT[],
    status_attempts INTEGER[], status_keys TEXT[], status_enqueued BIGINT[], status_took BIGINT[],
    status_messages TEXT[],
    key_abilities TEXT[], key_texts TEXT[], key_ids UUID[]
) RETURNS BIGINT LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off
SET enable_nestloop = off SET enable_mergejoin = off SET enable_material = off SET jit = off AS
$$
DECLARE
    now_at BIGINT := qudo_now();
    missing BIGINT;
    counted INTEGER;
    placed INTEGER := 0;
BEGIN
    PERFORM qudo_take(in_worker, ids, claims, run_ids, run_lengths, run_claims);
    IF 0 = ANY (again_after) THEN
        INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
        SELECT x.queue, x.claim_rank, x.id, x.ability, x.attempt, x.crashes, x.flags
        FROM unnest(again_ids, again_queues, again_ranks, again_abilities, again_attempts, again_crashes,
            again_flags, again_after)
            AS x (id, queue, claim_rank, ability, attempt, crashes, flags, after)
        WHERE x.after = 0;
        GET DIAGNOSTICS placed = ROW_COUNT;
    END IF;
    IF placed < cardinality(again_ids) THEN
        INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
        SELECT now_at + x.after, x.id, x.queue, x.claim_rank, x.ability, x.attempt, x.crashes, x.flags
        FROM unnest(again_ids, again_queues, again_ranks, again_abilities, again_attempts, again_crashes,
            again_flags, again_after)
            AS x (id, queue, claim_rank, ability, attempt, crashes, flags, after)
        WHERE x.after > 0;
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF placed + counted <> cardinality(again_ids) THEN
            PERFORM qudo_refuse('rows do not add up: ' || cardinality(again_ids) || ' taken, '
                || placed + counted || ' put by the step "settle"');
        END IF;
    END IF;
    IF cardinality(log_ids) > 0 THEN
        INSERT INTO qudo_exception_log (id, job_id, ability, queue, worker, worker_name, program_version,
            attempt, kind, error_class, message, failed_at, discarded, uniqkey, priority, codec, arg, meta)
        SELECT x.id, x.job, j.ability, j.queue, in_worker, x.name, x.version, x.attempt, x.kind, x.class,
            x.message, now_at, x.discarded, j.uniqkey, j.priority,
            CASE WHEN x.discarded = 1 THEN j.codec END, CASE WHEN x.discarded = 1 THEN j.arg END, j.meta
        FROM unnest(log_ids, log_jobs, log_attempts, log_kinds, log_classes, log_messages, log_names,
            log_versions, log_discarded)
            AS x (id, job, attempt, kind, class, message, name, version, discarded)
        JOIN qudo_job j ON j.id = x.job
        WHERE j.id = ANY (log_jobs);
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF counted <> cardinality(log_ids) THEN
            RAISE EXCEPTION 'qudo: not all leases are held: % of % have facts', counted, cardinality(log_ids);
        END IF;
    END IF;
    IF cardinality(reply_jobs) > 0 THEN
        -- The id of a job that is gone may have been given to a new one; the first reply then stays.
        INSERT INTO qudo_reply (job_id, seq, codec, body, created_at)
        SELECT x.job, x.seq, x.codec, x.body, now_at
        FROM unnest(reply_jobs, reply_seqs, reply_codecs, reply_bodies) AS x (job, seq, codec, body)
        ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(status_ids) > 0 THEN
        INSERT INTO qudo_job_status (id, job_id, ability, status, attempt, uniqkey, enqueued_at, started_at,
            finished_at, message)
        SELECT x.id, x.job, x.ability, x.status, x.attempt, x.uniqkey, x.enqueued, now_at - x.took, now_at,
            x.message
        FROM unnest(status_ids, status_jobs, status_abilities, status_texts, status_attempts, status_keys,
            status_enqueued, status_took, status_messages)
            AS x (id, job, ability, status, attempt, uniqkey, enqueued, took, message);
        GET DIAGNOSTICS counted = ROW_COUNT;
        IF counted <> cardinality(status_ids) THEN
            PERFORM qudo_refuse('rows do not add up: ' || counted || ' of ' || cardinality(status_ids)
                || ' rows of the history put by the step "settle"');
        END IF;
    END IF;
    missing := qudo_remove(gone, gone_run_ids, gone_run_lengths);
    IF cardinality(key_ids) > 0 THEN
        DELETE FROM qudo_unique WHERE ctid = ANY (ARRAY(
            SELECT u.ctid FROM unnest(key_abilities, key_texts, key_ids) AS v (ability, uniqkey, id),
            LATERAL (SELECT k.ctid, k.id FROM qudo_unique k
                WHERE k.ability = v.ability AND k.uniqkey = v.uniqkey OFFSET 0) u
            WHERE u.id = v.id));
    END IF;
    RETURN missing;
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
