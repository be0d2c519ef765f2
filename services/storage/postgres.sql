-- Statements of services/storage/postgres.py, each after a line that names it.

-- name: install
-- Commits one plan: {ns, assumed: [seq, hash], end: [seq, hash], and the rows of each table}. False,
-- and nothing is changed, when the log no longer ends where the plan assumes.
--
-- It takes the counter row and gives it back inside one call, so that no client can hold it: not one
-- that was paused, nor one whose network is gone. Whoever waits for the row looks at it again when
-- the holder has committed, finds another seq and loses. Commit order is therefore seq order.
--
-- The name carries the schema's version: replicas of two versions may run side by side.
CREATE OR REPLACE FUNCTION skillwire_write_4(plan json) RETURNS boolean LANGUAGE plpgsql AS $function$
BEGIN
    UPDATE change_head
       SET seq = (plan #>> '{end,0}')::bigint, hash = plan #>> '{end,1}'
     WHERE ns = plan ->> 'ns'
       AND seq = (plan #>> '{assumed,0}')::bigint AND hash = plan #>> '{assumed,1}';
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO changes SELECT * FROM json_populate_recordset(NULL::changes, plan -> 'changes');
    INSERT INTO versions SELECT * FROM json_populate_recordset(NULL::versions, plan -> 'versions');
    INSERT INTO solutions SELECT * FROM json_populate_recordset(NULL::solutions, plan -> 'solutions');

    INSERT INTO skills SELECT * FROM json_populate_recordset(NULL::skills, plan -> 'skills')
        ON CONFLICT (id) DO UPDATE
        SET owner = excluded.owner, name = excluded.name, visibility = excluded.visibility,
            status = excluded.status, seq = excluded.seq, last_version = excluded.last_version,
            active_version = excluded.active_version, pinned = excluded.pinned,
            deleted_version = excluded.deleted_version;

    INSERT INTO ledger SELECT * FROM json_populate_recordset(NULL::ledger, plan -> 'ledger')
        ON CONFLICT (source, path) DO UPDATE
        SET digest = excluded.digest, skill_id = excluded.skill_id, diagnostics = excluded.diagnostics;

    INSERT INTO streams SELECT * FROM json_populate_recordset(NULL::streams, plan -> 'streams')
        ON CONFLICT (ns, topic, owner, visibility) DO UPDATE
        SET change_id = excluded.change_id;

    UPDATE incidents SET level = marked.level
      FROM json_to_recordset(plan -> 'levels') AS marked(id text, level text)
     WHERE incidents.id = marked.id;

    DELETE FROM versions USING json_to_recordset(plan -> 'pruned') AS pruned(skill_id text, version bigint)
     WHERE versions.skill_id = pruned.skill_id AND versions.version = pruned.version;

    DELETE FROM versions USING json_to_recordset(plan -> 'removed') AS removed(skill_id text)
     WHERE versions.skill_id = removed.skill_id;
    DELETE FROM usage USING json_to_recordset(plan -> 'removed') AS removed(skill_id text)
     WHERE usage.skill_id = removed.skill_id;
    DELETE FROM ledger USING json_to_recordset(plan -> 'removed') AS removed(skill_id text)
     WHERE ledger.skill_id = removed.skill_id;

    INSERT INTO runs SELECT * FROM json_populate_recordset(NULL::runs, plan -> 'runs')
        ON CONFLICT (id) DO UPDATE
        SET principal = excluded.principal, status = excluded.status, expires_at = excluded.expires_at,
            body = excluded.body;
    INSERT INTO documents SELECT * FROM json_populate_recordset(NULL::documents, plan -> 'documents')
        ON CONFLICT (name) DO UPDATE SET body = excluded.body;

    RETURN true;
END
$function$;

-- name: write
-- Answers one row when the plan was committed and none when it lost. The plan stands in the statement as
-- a literal, so that the whole of it is one message of the simple protocol: the server starts when it
-- has all of it, and commits without waiting for another word from us. The notification, a hint for
-- `changes/postgres_hints.py`, is sent by the commit, and not at all for a plan that lost.
SELECT pg_notify('skillwire_main_hint', '%d') WHERE skillwire_write_4(%s);

-- name: record
-- Keeps the invocations that are not there yet and adds exactly those to what is counted: one statement,
-- so that a batch whose answer was lost can be given again. Counts are taken in the order of their keys,
-- so that two replicas never wait for each other in a ring.
WITH kept AS (
    INSERT INTO invocations SELECT * FROM json_populate_recordset(NULL::invocations, %s)
    ON CONFLICT (id) DO NOTHING
    RETURNING skill_id, version, ok, at
)
INSERT INTO usage (skill_id, version, calls, failures, last_at)
SELECT skill_id, version, count(*), count(*) FILTER (WHERE NOT ok), max(at) FROM kept
 GROUP BY skill_id, version ORDER BY skill_id, version
ON CONFLICT (skill_id, version) DO UPDATE
    SET calls = usage.calls + excluded.calls, failures = usage.failures + excluded.failures,
        last_at = greatest(usage.last_at, excluded.last_at);

-- name: one_at_a_time
-- Replicas that start together make tables one after the other: CREATE ... IF NOT EXISTS alone fails
-- when two do it at once. Held to the end of the transaction; the number means nothing.
SELECT pg_advisory_xact_lock(7308325193);

-- name: patience
-- For the wait above, which may be for another replica's whole set-up.
SET LOCAL lock_timeout = '5s';
