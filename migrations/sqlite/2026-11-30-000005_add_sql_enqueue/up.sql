-- Enqueues from SQL: by sqlite3, by a trigger, by a program in any language. What callers may rely on is written in
-- docs/guide/sql.md. Programs that know only the tables before it go on working. Costs nothing.
--
-- The library of whoever enqueues may be as old as 3.40, older than what qudo needs: no unhex, no unixepoch with fractions, no RAISE
-- with an expression.

-- What was enqueued last, in one row; meanwhile the place where the trigger keeps what it reckons. Readable in the transaction of the enqueue
-- alone: the next one writes over it.
CREATE TABLE qudo_enqueued (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    is_new INTEGER NOT NULL,
    job BLOB NOT NULL,
    number INTEGER NOT NULL,
    asked BLOB
);

INSERT INTO qudo_enqueued (one, id, is_new, job, number) VALUES (1, '', 0, x'', 0);

-- Texts for the checks: all bytes, the pattern of a text with a control character, and the spaces of Unicode that are none.
CREATE VIEW qudo_sign AS
SELECT
    x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff' AS bytes,
    '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*' AS control,
    char(32, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287,
        12288) AS spaces;

-- To be inserted into by adapters to other libraries, which have checked the job; it shows nothing. Times are microseconds. Its name
-- ends in a number, because clients of two versions may work on one database. It looks for no draining: whoever chose the
-- connection has chosen the database.
CREATE VIEW qudo_store_1 AS
SELECT NULL AS id, NULL AS ability, NULL AS queue, NULL AS codec, NULL AS arg, NULL AS priority, NULL AS run_at, NULL AS after,
    NULL AS uniqkey, NULL AS meta
WHERE 0;

-- Each statement is written so that it meets no conflict: the OR of the statement that fires a trigger takes the place of those
-- inside, so that with OR IGNORE a refused row would be passed over in silence, and with OR REPLACE another's be removed.
--
-- Locking: the one of the file, which the caller's transaction takes with its first write.
CREATE TRIGGER qudo_store_1_insert INSTEAD OF INSERT ON qudo_store_1
BEGIN
    UPDATE qudo_enqueued SET asked = NEW.id, job = NEW.id, id = lower(hex(NEW.id)), is_new = NOT EXISTS (SELECT 1 FROM qudo_job j WHERE j.id = NEW.id);
    UPDATE qudo_enqueued SET is_new = 0, id = lower(hex(u.id)), job = u.id
    FROM qudo_unique u
    WHERE is_new AND NEW.uniqkey IS NOT NULL AND u.ability = NEW.ability AND u.uniqkey = NEW.uniqkey
        AND u.id <> qudo_enqueued.job;
    INSERT INTO qudo_unique (ability, uniqkey, id)
    SELECT NEW.ability, NEW.uniqkey, e.job FROM qudo_enqueued e
    WHERE e.is_new AND NEW.uniqkey IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM qudo_unique u WHERE u.ability = NEW.ability AND u.uniqkey = NEW.uniqkey);
    INSERT INTO qudo_job (id, ability, queue, codec, arg, priority, uniqkey, meta, enqueued_at)
    SELECT e.job, NEW.ability, NEW.queue, NEW.codec, NEW.arg, NEW.priority, NEW.uniqkey, NEW.meta,
        CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000
    FROM qudo_enqueued e WHERE e.is_new;
    INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags)
    SELECT COALESCE(NEW.run_at, j.enqueued_at + NEW.after), e.job, NEW.queue, -NEW.priority, NEW.ability, 0, 0, NEW.uniqkey IS NOT NULL
    FROM qudo_enqueued e JOIN qudo_job j ON j.id = e.job
    WHERE e.is_new AND COALESCE(NEW.run_at, j.enqueued_at + NEW.after) > j.enqueued_at;
    INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags)
    SELECT NEW.queue, -NEW.priority, e.job, NEW.ability, 0, 0, NEW.uniqkey IS NOT NULL
    FROM qudo_enqueued e
    WHERE e.is_new AND NOT EXISTS (SELECT 1 FROM qudo_scheduled x WHERE x.id = e.job);
    SELECT RAISE(ABORT, 'qudo: rows do not add up in the step "enqueue"')
    FROM qudo_enqueued e
    WHERE e.is_new AND NOT (EXISTS (SELECT 1 FROM qudo_job j WHERE j.id = e.job)
        AND (EXISTS (SELECT 1 FROM qudo_scheduled x WHERE x.id = e.job)
            OR EXISTS (SELECT 1 FROM qudo_ready r WHERE r.queue = NEW.queue AND r.claim_rank = -NEW.priority AND r.id = e.job)));
END;

-- To be inserted into; it shows nothing.
CREATE VIEW qudo_enqueue AS
SELECT NULL AS ability, NULL AS arg, NULL AS queue, NULL AS priority, NULL AS run_after, NULL AS uniqkey, NULL AS meta, NULL AS id
WHERE 0;

CREATE TRIGGER qudo_enqueue_insert INSTEAD OF INSERT ON qudo_enqueue
BEGIN
    SELECT RAISE(ABORT, 'qudo: the database has another encoding than UTF-8') WHERE CAST('a' AS BLOB) <> x'61';
    SELECT RAISE(ABORT, 'qudo: the ability has to be a text of 1 to 100 bytes, without control characters, and without spaces at its beginning and end')
    FROM qudo_sign s
    WHERE typeof(NEW.ability) <> 'text' OR length(CAST(NEW.ability AS BLOB)) NOT BETWEEN 1 AND 100 OR instr(CAST(NEW.ability AS BLOB), x'00')
        OR NEW.ability GLOB '*[^!-~]*' AND (NEW.ability GLOB s.control OR trim(NEW.ability, s.spaces) <> NEW.ability
            OR NEW.ability <> (WITH RECURSIVE at (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < length(NEW.ability))
            SELECT group_concat(char(unicode(substr(NEW.ability, n, 1))), '') FROM at));
    SELECT RAISE(ABORT, 'qudo: the queue has to be a text of 1 to 100 bytes, without control characters, and without spaces at its beginning and end')
    FROM qudo_sign s
    WHERE typeof(COALESCE(NEW.queue, 'default')) <> 'text' OR length(CAST(COALESCE(NEW.queue, 'default') AS BLOB)) NOT BETWEEN 1 AND 100 OR instr(CAST(COALESCE(NEW.queue, 'default') AS BLOB), x'00')
        OR COALESCE(NEW.queue, 'default') GLOB '*[^!-~]*' AND (COALESCE(NEW.queue, 'default') GLOB s.control OR trim(COALESCE(NEW.queue, 'default'), s.spaces) <> COALESCE(NEW.queue, 'default')
            OR COALESCE(NEW.queue, 'default') <> (WITH RECURSIVE at (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < length(COALESCE(NEW.queue, 'default')))
            SELECT group_concat(char(unicode(substr(COALESCE(NEW.queue, 'default'), n, 1))), '') FROM at));
    SELECT RAISE(ABORT, 'qudo: the unique key has to be a text of 1 to 500 bytes without NUL')
    WHERE NEW.uniqkey IS NOT NULL AND (typeof(NEW.uniqkey) <> 'text' OR length(CAST(NEW.uniqkey AS BLOB)) NOT BETWEEN 1 AND 500
        OR instr(CAST(NEW.uniqkey AS BLOB), x'00')
        OR NEW.uniqkey GLOB '*[^ -~]*' AND NEW.uniqkey <> (WITH RECURSIVE at (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < length(NEW.uniqkey))
            SELECT group_concat(char(unicode(substr(NEW.uniqkey, n, 1))), '') FROM at));
    SELECT RAISE(ABORT, 'qudo: the argument is no JSON')
    WHERE typeof(NEW.arg) = 'blob' OR NOT json_valid(COALESCE(NEW.arg, 'null')) OR instr(CAST(NEW.arg AS BLOB), x'00');
    SELECT RAISE(ABORT, 'qudo: the argument takes more than 8388608 bytes') WHERE length(CAST(NEW.arg AS BLOB)) > 8388608;
    SELECT RAISE(ABORT, 'qudo: the priority has to be a whole number of 32 bits')
    -- Some drivers send each number as a float.
    WHERE NEW.priority IS NOT NULL AND (typeof(NEW.priority) NOT IN ('integer', 'real')
        OR NEW.priority NOT BETWEEN -2147483648 AND 2147483647 OR CAST(NEW.priority AS INTEGER) <> NEW.priority);
    SELECT RAISE(ABORT, 'qudo: run_after has to be a time in UTC as datetime() writes it, and no more than a year away')
    WHERE NEW.run_after IS NOT NULL AND (typeof(NEW.run_after) <> 'text' OR julianday(NEW.run_after) IS NULL
        OR NEW.run_after NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
        OR julianday(NEW.run_after) > julianday('now') + 366);
    SELECT RAISE(ABORT, 'qudo: the metadata is no JSON object, or takes more than 65536 bytes')
    WHERE NEW.meta IS NOT NULL AND (typeof(NEW.meta) <> 'text' OR length(CAST(NEW.meta AS BLOB)) > 65536
        OR NOT json_valid(NEW.meta) OR json_type(NEW.meta) <> 'object' OR instr(CAST(NEW.meta AS BLOB), x'00')
        OR instr(NEW.meta, '\u0000')
        -- In pieces, because finding a character by its number takes a walk from the beginning.
        OR NEW.meta GLOB '*[^' || char(1) || '-~]*' AND EXISTS (
            WITH RECURSIVE piece (n) AS (SELECT 1 UNION ALL SELECT n + 256 FROM piece WHERE n + 256 <= length(NEW.meta)),
                part (text) AS (SELECT substr(NEW.meta, n, 256) FROM piece)
            SELECT 1 FROM part WHERE text <> (
                WITH RECURSIVE at (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < length(text))
                SELECT group_concat(char(unicode(substr(text, n, 1))), '') FROM at)));
    SELECT RAISE(ABORT, 'qudo: the metadata is nested on more than 64 levels')
    WHERE 2 * length(NEW.meta) - length(replace(NEW.meta, '[', '')) - length(replace(NEW.meta, '{', '')) > 64
        AND EXISTS (SELECT 1 FROM json_tree(NEW.meta) t WHERE t.type IN ('object', 'array')
            AND 2 * length(t.fullkey) - length(replace(t.fullkey, '.', '')) - length(replace(t.fullkey, '[', '')) > 64);
    SELECT RAISE(ABORT, 'qudo: a name or a tag of the metadata has to be a text of 1 to 100 bytes, without control characters, and without spaces at its beginning and end')
    FROM qudo_sign s
    WHERE NEW.meta IS NOT NULL AND (json_type(NEW.meta, '$.tags') <> 'array' OR EXISTS (
        SELECT 1 FROM (SELECT key AS name, 'text' AS type FROM json_each(NEW.meta)
            UNION ALL SELECT value, type FROM json_each(NEW.meta, '$.tags')) x
        WHERE x.type <> 'text' OR length(CAST(x.name AS BLOB)) NOT BETWEEN 1 AND 100 OR instr(CAST(x.name AS BLOB), x'00')
            OR x.name GLOB s.control OR trim(x.name, s.spaces) <> x.name));
    SELECT RAISE(ABORT, 'qudo: the id has to be a UUID: 16 bytes, or a text of 32 hexadecimal digits with dashes or without')
    WHERE NEW.id IS NOT NULL AND NOT (typeof(NEW.id) = 'blob' AND length(NEW.id) = 16
        OR typeof(NEW.id) = 'text' AND length(NEW.id) IN (32, 36) AND length(replace(NEW.id, '-', '')) = 32
            AND replace(NEW.id, '-', '') NOT GLOB '*[^0-9A-Fa-f]*');
    SELECT RAISE(ABORT, 'qudo: the database is draining: it takes no new jobs')
    WHERE EXISTS (SELECT 1 FROM qudo_control WHERE name = 'draining');

    -- Ids of one millisecond are numbered, so that jobs run in the order in which they were enqueued. The time stands still
    -- within a statement, so that they may be more than the 4,096 of a millisecond.
    UPDATE qudo_enqueued SET number = CASE WHEN number BETWEEN x.first AND x.first + 4096000 THEN number + 1 ELSE x.first END
    FROM (SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 4096 AS first) x;
    UPDATE qudo_enqueued SET id = COALESCE(
        CASE typeof(NEW.id) WHEN 'blob' THEN lower(hex(NEW.id)) ELSE lower(replace(NEW.id, '-', '')) END,
        printf('%012x7%03x', number / 4096, number % 4096) || substr('89ab', (random() & 3) + 1, 1)
            || substr(lower(hex(randomblob(8))), 1, 15));
    UPDATE qudo_enqueued SET job = (
        SELECT CAST(group_concat(substr(s.bytes, 16 * instr('123456789abcdef', substr(qudo_enqueued.id, n.value, 1))
            + instr('123456789abcdef', substr(qudo_enqueued.id, n.value + 1, 1)) + 1, 1), '') AS BLOB)
        FROM json_each('[1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31]') n, qudo_sign s);
    INSERT INTO qudo_store_1 (id, ability, queue, codec, arg, priority, run_at, after, uniqkey, meta)
    SELECT e.job, NEW.ability, COALESCE(NEW.queue, 'default'), 'json', CAST(COALESCE(NEW.arg, 'null') AS BLOB),
        max(CAST(COALESCE(NEW.priority, 0) AS INTEGER), -2147483647),
        CAST(round((julianday(NEW.run_after) - 2440587.5) * 86400000) AS INTEGER) * 1000, 0, NEW.uniqkey, NULLIF(NEW.meta, '{}')
    FROM qudo_enqueued e;
END;
