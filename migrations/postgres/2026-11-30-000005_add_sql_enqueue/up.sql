-- Enqueues from SQL: by psql, by a trigger, by a program in any language. What callers may rely on is written in
-- docs/guide/sql.md. Programs that know only the tables before it go on working. Costs nothing.
--
-- Without a search path of their own, which costs a lone enqueue a quarter of its time: as with the library on a connection of a
-- caller's, the default's tables are found by the path of the caller, and those of an installation with a schema by their names.

-- Refuses a name that an engine would change or could not index.
CREATE FUNCTION qudo_check(what TEXT, name TEXT) RETURNS VOID LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
    reason TEXT := CASE
        WHEN name IS NULL OR name = '' THEN 'is empty'
        WHEN octet_length(name) > 100 THEN 'takes ' || octet_length(name) || ' bytes, more than 100'
        WHEN name COLLATE "C" ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'contains a control character'
        -- The spaces of Unicode that are no control characters.
        WHEN name COLLATE "C" ~ '^[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
            OR name COLLATE "C" ~ '[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$'
            THEN 'begins or ends with a space'
    END;
BEGIN
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION 'qudo: the % %', what, reason USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- Refuses metadata that would not be read back.
CREATE FUNCTION qudo_check_meta(meta JSONB) RETURNS VOID LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    reason TEXT := CASE
        WHEN jsonb_typeof(meta) <> 'object' THEN 'is no JSON object'
        WHEN octet_length(meta::TEXT) > 65536 THEN 'takes ' || octet_length(meta::TEXT) || ' bytes, more than 65536'
        WHEN jsonb_path_exists(meta, 'strict $.**{65} ? (@.type() == "object" || @.type() == "array")')
            THEN 'is nested on more than 64 levels'
        WHEN jsonb_typeof(meta -> 'tags') <> 'array'
            OR jsonb_path_exists(meta, 'strict $.tags[*] ? (@.type() != "string")', '{}', true)
            THEN 'has tags that are no list of texts'
    END;
BEGIN
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION 'qudo: the metadata %', reason USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM qudo_check('name of metadata', x.name) FROM jsonb_object_keys(meta) AS x (name);
    IF meta ? 'tags' THEN
        PERFORM qudo_check('tag', x.tag) FROM jsonb_array_elements_text(meta -> 'tags') AS x (tag);
    END IF;
END
$$;

-- Refuses a job that the library would refuse.
CREATE FUNCTION qudo_check_job(
    ability TEXT, body BYTEA, queue TEXT, run_after TIMESTAMPTZ, uniqkey TEXT, meta JSONB
) RETURNS VOID LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    reason TEXT := CASE
        WHEN uniqkey = '' OR octet_length(uniqkey) > 500 THEN 'the unique key has to have 1 to 500 bytes'
        WHEN octet_length(body) > 8388608
            THEN 'the argument takes ' || octet_length(body) || ' bytes, more than 8388608'
        WHEN run_after > clock_timestamp() + INTERVAL '366 days' THEN 'a job cannot be put off for more than a year'
    END;
BEGIN
    PERFORM qudo_check('ability', ability), qudo_check('queue', queue);
    -- Such a database keeps bytes that are no text, and who reads them as UTF-8 fails.
    IF getdatabaseencoding() = 'SQL_ASCII' THEN
        PERFORM convert_from(textsend(concat(ability, queue, uniqkey, meta)), 'UTF8');
    END IF;
    IF reason IS NOT NULL THEN
        RAISE EXCEPTION 'qudo: %', reason USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF meta IS NOT NULL THEN
        PERFORM qudo_check_meta(meta);
    END IF;
END
$$;

-- A UUIDv7 of these microseconds. Its first free bits are the fraction of a millisecond, so that jobs of one session run
-- in the order in which they were enqueued.
CREATE FUNCTION qudo_new_id(us BIGINT) RETURNS UUID LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$
    SELECT encode(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send(us / 1000) FROM 3) || int2send((28672 + us % 1000 * 4096 / 1000)::SMALLINT)
        FROM 1 FOR 8), 'hex')::UUID
$$;

-- Stores a job in the caller's transaction; for adapters to other libraries, which have checked it. The id and is_new are the
-- answer: not new is a job whose id is stored already, or whose key a live job holds, which is the one that is answered then.
-- Its name ends in a number, because clients of two versions may work on one database. It looks for no draining: whoever
-- chose the connection has chosen the database.
--
-- Locking: the row of the key, as any enqueue with a key: whoever enqueues the same key meanwhile waits for the caller's
-- commit.
CREATE FUNCTION qudo_store_1(
    new_id UUID, in_ability TEXT, in_queue TEXT, in_codec TEXT, body BYTEA, in_priority INTEGER, run_at BIGINT,
    after BIGINT, in_uniqkey TEXT, in_meta TEXT, notify BOOLEAN, OUT id UUID, OUT is_new BOOLEAN
) LANGUAGE plpgsql VOLATILE AS
$$
#variable_conflict use_column
DECLARE
    now_at BIGINT := qudo_now();
    due BIGINT := COALESCE(run_at, now_at + after);
    holder UUID;
    counted BIGINT;
BEGIN
    id := new_id;
    is_new := false;
    IF EXISTS (SELECT FROM qudo_job j WHERE j.id = new_id) THEN
        RETURN;
    END IF;
    IF in_uniqkey IS NOT NULL THEN
        FOR try IN 1 .. 5 LOOP
            INSERT INTO qudo_unique (ability, uniqkey, id) VALUES (in_ability, in_uniqkey, new_id) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            SELECT u.id INTO holder FROM qudo_unique u WHERE u.ability = in_ability AND u.uniqkey = in_uniqkey;
            EXIT WHEN holder = new_id;
            IF FOUND THEN
                id := holder;
                RETURN;
            END IF;
            -- The holder ended between the insert and the look: the key is free again.
            IF try = 5 THEN
                RAISE EXCEPTION 'qudo: the unique key changed hands too often' USING ERRCODE = 'serialization_failure';
            END IF;
        END LOOP;
    END IF;
    INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, uniqkey, meta, enqueued_at)
    VALUES (new_id, in_ability, in_queue, in_codec, body, in_priority, in_uniqkey, in_meta, now_at)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT FROM qudo_job j WHERE j.id = new_id) THEN
            PERFORM qudo_refuse('rows do not add up: no facts put by the step "enqueue"');
        END IF;
        -- Somebody stored a job with this id while we looked. With another key, or none: the row of ours must not stay.
        IF in_uniqkey IS NOT NULL AND holder IS NULL THEN
            RAISE EXCEPTION 'qudo: a job with the id % was stored at the same time', new_id
                USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN;
    END IF;
    IF due > now_at THEN
        INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
        VALUES (due, new_id, in_queue, -in_priority, in_ability, 0, 0, (in_uniqkey IS NOT NULL)::INTEGER);
    ELSE
        INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
        VALUES (in_queue, -in_priority, new_id, in_ability, 0, 0, (in_uniqkey IS NOT NULL)::INTEGER);
    END IF;
    GET DIAGNOSTICS counted = ROW_COUNT;
    IF counted <> 1 THEN
        PERFORM qudo_refuse('rows do not add up: ' || counted || ' places put by the step "enqueue"');
    END IF;
    IF notify AND due <= now_at THEN
        PERFORM pg_notify('qudo', in_queue);
    END IF;
    is_new := true;
END
$$;

-- Stores a job in the caller's transaction, and wakes workers at its commit. The id and is_new are the answer: not new is
-- a job whose id is stored already, or whose key a live job holds, which is the one that is answered then.
--
-- A new transaction makes each expression of a function ready anew, so the short way has few of them: for a job that is
-- ready at once, without a key, and whose id is not given. In it no id can meet another, so nothing stored means that the
-- database is draining, or that a trigger or a rule kept a row out.
--
-- Locking: as qudo_store_1.
CREATE FUNCTION qudo_enqueue(
    ability TEXT, arg JSONB DEFAULT 'null', queue TEXT DEFAULT 'default', priority INTEGER DEFAULT 0,
    run_after TIMESTAMPTZ DEFAULT NULL, uniqkey TEXT DEFAULT NULL, meta JSONB DEFAULT NULL,
    INOUT id UUID DEFAULT NULL, OUT is_new BOOLEAN
) LANGUAGE plpgsql VOLATILE AS
$$
#variable_conflict use_column
DECLARE
    in_queue TEXT := COALESCE($3, 'default');
    -- The lowest number has no rank.
    in_priority INTEGER := GREATEST(COALESCE($4, 0), -2147483647);
    body BYTEA := convert_to(COALESCE($2, 'null')::TEXT, 'UTF8');
    now_at BIGINT := qudo_now();
    new_id UUID := COALESCE($8, qudo_new_id(now_at));
BEGIN
    IF NOT COALESCE($1 COLLATE "C" ~ '^[!-~]{1,100}$' AND in_queue COLLATE "C" ~ '^[!-~]{1,100}$'
        AND octet_length(body) <= 8388608 AND COALESCE($5::TEXT, $6, $7::TEXT) IS NULL, false)
    THEN
        PERFORM qudo_check_job($1, body, in_queue, $5, $6, $7);
    END IF;
    is_new := true;
    IF $8 IS NULL AND $6 IS NULL AND ($5 <= clock_timestamp()) IS NOT FALSE THEN
        id := new_id;
        WITH job AS (
            INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, meta, enqueued_at)
            SELECT new_id, $1, in_queue, 'json', body, in_priority, NULLIF($7, '{}')::TEXT, now_at
            WHERE NOT EXISTS (SELECT FROM qudo_control WHERE name = 'draining')
            RETURNING id
        )
        INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
        SELECT in_queue, -in_priority, id, $1, 0, 0, 0 FROM job;
        IF NOT FOUND THEN
            PERFORM qudo_refuse(CASE WHEN EXISTS (SELECT FROM qudo_control WHERE name = 'draining')
                THEN 'the database is draining: it takes no new jobs'
                ELSE 'rows do not add up: none put by the step "enqueue"' END);
        END IF;
        PERFORM pg_notify('qudo', in_queue);
        RETURN;
    END IF;

    IF EXISTS (SELECT FROM qudo_control WHERE name = 'draining') THEN
        PERFORM qudo_refuse('the database is draining: it takes no new jobs');
    END IF;
    SELECT s.id, s.is_new INTO id, is_new
    FROM qudo_store_1(new_id, $1, in_queue, 'json', body, in_priority,
        CASE WHEN $5 > clock_timestamp() THEN (date_part('epoch', $5) * 1000000)::BIGINT END, 0, $6, NULLIF($7, '{}')::TEXT,
        true) s;
END
$$;
