-- The two functions as they were.

CREATE OR REPLACE FUNCTION qudo_claim(
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

CREATE OR REPLACE FUNCTION qudo_complete(in_worker UUID, ids UUID[], claims BIGINT[])
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
