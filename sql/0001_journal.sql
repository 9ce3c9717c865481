-- The journal: one total order of records, and what finds them. Everything is only ever added to: under a
-- transaction that stays open elsewhere nothing bloats, for nothing is updated.

CREATE SCHEMA cairn;
COMMENT ON SCHEMA cairn IS 'A Cairn journal: read it through the views "events", "streams" and "categories".';

-- Which migrations have been applied, and how old a program may be that writes.
CREATE TABLE cairn.meta (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	schema integer NOT NULL,
	needs integer NOT NULL
);
COMMENT ON COLUMN cairn.meta.schema IS 'the number of the newest migration applied';
COMMENT ON COLUMN cairn.meta.needs IS 'the oldest level of a program that may write here';
INSERT INTO cairn.meta (schema, needs) VALUES (1, 1);

-- What the journal is. Its row is what writers lock, and it is never updated.
CREATE TABLE cairn.journal (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	id uuid NOT NULL,
	created bigint NOT NULL
);
COMMENT ON TABLE cairn.journal IS 'one row, locked by whoever appends; never updated';
INSERT INTO cairn.journal (id, created)
	VALUES (gen_random_uuid(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

-- Names, once. A number is the position of the first record of its stream or category.
CREATE TABLE cairn.category (
	no bigint PRIMARY KEY,
	name text COLLATE "C" NOT NULL UNIQUE
);
CREATE TABLE cairn.stream (
	no bigint PRIMARY KEY,
	category_no bigint NOT NULL,
	name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE cairn.record (
	position bigint PRIMARY KEY,
	stream_no bigint NOT NULL,
	category_no bigint NOT NULL,
	sequence bigint NOT NULL,
	number bigint NOT NULL,
	commit_time bigint NOT NULL,
	id uuid NOT NULL,
	kind integer NOT NULL,
	last_of_append boolean NOT NULL,
	system boolean NOT NULL,
	content boolean NOT NULL,
	removed boolean NOT NULL DEFAULT false,
	bytes bytea NOT NULL
);
COMMENT ON TABLE cairn.record IS 'the log; positions are 0, 1, 2 ... without gaps, in the order of commits';
COMMENT ON COLUMN cairn.record.number IS 'which record of its stream it is, from 1; acts upon it do not count';
COMMENT ON COLUMN cairn.record.removed IS 'nothing but position and leaf hash is left';
COMMENT ON COLUMN cairn.record.commit_time IS 'microseconds since 1970, never less than of the record before';
COMMENT ON COLUMN cairn.record.bytes IS 'the record as it is sent: cairn.journal.v1.Entry behind its tag and length';
ALTER TABLE cairn.record ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX record_id ON cairn.record (id) WHERE NOT removed;
CREATE UNIQUE INDEX record_stream ON cairn.record (stream_no, position);
CREATE INDEX record_category ON cairn.record (category_no, position);
CREATE UNIQUE INDEX record_sequence ON cairn.record (stream_no, sequence) WHERE kind IN (1, 3, 5) AND NOT removed;
CREATE INDEX record_snapshot ON cairn.record (stream_no, sequence, position) WHERE kind = 2 AND NOT removed;
CREATE INDEX record_removed ON cairn.record (stream_no, position) WHERE removed;

-- What acts withhold of a stream: its content below a position. `base` records were below it; `removed` at or
-- above it have been removed.
CREATE TABLE cairn.withheld (
	stream_no bigint PRIMARY KEY,
	below bigint NOT NULL DEFAULT 0,
	base bigint NOT NULL DEFAULT 0,
	removed bigint NOT NULL DEFAULT 0
);
-- And whose bodies: of events with these sequences, of snapshots that name the first or a later one, or of
-- all that is before the act.
CREATE TABLE cairn.erasure (
	stream_no bigint NOT NULL,
	position bigint NOT NULL,
	first bigint NOT NULL,
	last bigint NOT NULL,
	snapshots boolean NOT NULL,
	whole boolean NOT NULL,
	PRIMARY KEY (stream_no, position)
);

-- How often the process of each live session has beaten: no history, and the one thing that is updated.
CREATE TABLE cairn.session (
	id uuid PRIMARY KEY,
	beats bigint NOT NULL,
	ttl_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- Takes the journal's row until the end of the transaction. Whoever has it sees all that was committed
-- before, so it must not look through a snapshot that is older than the wait.
CREATE FUNCTION cairn.lock() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'cairn appends under READ COMMITTED only, this transaction is %',
			upper(current_setting('transaction_isolation'))
			USING ERRCODE = 'invalid_transaction_state',
			HINT = format('ALTER ROLE %I SET default_transaction_isolation = ''read committed''', session_user);
	END IF;
	-- A commit whose standby's answer was not waited for is reported as a warning.
	PERFORM set_config('client_min_messages', 'warning', true);
	IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
		PERFORM set_config('synchronous_commit', 'on', true);
	END IF;
	PERFORM 1 FROM cairn.journal FOR UPDATE;
END $$;

-- One batch: all of it, or (false) nothing, because the head is not the expected one, or a session that it
-- ends has beaten meanwhile. `locked`: this
-- transaction has taken the row already.
CREATE FUNCTION cairn.append(expected bigint, locked boolean,
	new_categories text[], new_category_nos bigint[],
	new_streams text[], new_stream_nos bigint[], new_stream_category_nos bigint[],
	stream_nos bigint[], category_nos bigint[], sequences bigint[], numbers bigint[], times bigint[],
	ids uuid[], kinds integer[], lasts boolean[], systems boolean[], bodies bytea[],
	contents boolean[], begun uuid[], begun_ttls bigint[], ended uuid[], ended_beats bigint[],
	hidden bigint[], hidden_belows bigint[], erased bigint[], erased_positions bigint[], erased_firsts bigint[],
	erased_lasts bigint[], erased_snapshots boolean[], erased_wholes boolean[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	head bigint;
BEGIN
	IF NOT locked THEN
		PERFORM cairn.lock();
	END IF;
	SELECT max(position) + 1 INTO head FROM cairn.record;
	IF coalesce(head, 0) <> expected THEN
		RETURN false;
	END IF;
	IF cardinality(ended) > 0 THEN
		PERFORM 1 FROM cairn.session s WHERE s.id = ANY (ended) ORDER BY s.id FOR UPDATE;
		PERFORM 1 FROM unnest(ended, ended_beats) AS e(id, beats) JOIN cairn.session s ON s.id = e.id
			WHERE s.beats <> e.beats;
		IF FOUND THEN
			RETURN false;
		END IF;
		DELETE FROM cairn.session s WHERE s.id = ANY (ended);
	END IF;
	IF cardinality(begun) > 0 THEN
		INSERT INTO cairn.session (id, beats, ttl_ms)
			SELECT b.id, 0, b.ttl FROM unnest(begun, begun_ttls) AS b(id, ttl) ON CONFLICT DO NOTHING;
	END IF;
	IF cardinality(new_streams) > 0 THEN
		INSERT INTO cairn.category (name, no) SELECT * FROM unnest(new_categories, new_category_nos);
		INSERT INTO cairn.stream (name, no, category_no)
			SELECT * FROM unnest(new_streams, new_stream_nos, new_stream_category_nos);
	END IF;
	IF cardinality(bodies) > 0 THEN
		INSERT INTO cairn.record (position, stream_no, category_no, sequence, number, commit_time, id,
				kind, last_of_append, system, content, bytes)
			SELECT expected + r.nth - 1, r.stream_no, r.category_no, r.sequence, r.number,
				r.commit_time, r.id, r.kind, r.last, r.system, r.content, r.bytes
			FROM unnest(stream_nos, category_nos, sequences, numbers, times, ids, kinds, lasts,
				systems, contents, bodies) WITH ORDINALITY AS r(stream_no, category_no, sequence,
				number, commit_time, id, kind, last, system, content, bytes, nth);
	END IF;
	IF cardinality(hidden) > 0 THEN
		INSERT INTO cairn.withheld AS w (stream_no, below)
			SELECT h.stream_no, max(h.below) FROM unnest(hidden, hidden_belows) AS h(stream_no, below)
			GROUP BY h.stream_no
			ON CONFLICT (stream_no) DO UPDATE SET below = greatest(w.below, excluded.below);
		UPDATE cairn.withheld w SET
			base = coalesce((SELECT r.number FROM cairn.record r WHERE r.stream_no = w.stream_no
				AND r.position < w.below ORDER BY r.position DESC LIMIT 1), 0),
			removed = (SELECT count(*) FROM cairn.record r WHERE r.stream_no = w.stream_no
				AND r.removed AND r.content AND r.position >= w.below)
			WHERE w.stream_no = ANY (hidden);
	END IF;
	IF cardinality(erased) > 0 THEN
		INSERT INTO cairn.erasure (stream_no, position, first, last, snapshots, whole)
			SELECT * FROM unnest(erased, erased_positions, erased_firsts, erased_lasts, erased_snapshots,
				erased_wholes);
	END IF;
	RETURN true;
END $$;

-- The counts of these sessions, one higher if `beat`, each once; of those that have ended none. A count need
-- not be durable.
CREATE FUNCTION cairn.beat(ids uuid[], beat boolean) RETURNS TABLE (session uuid, beats bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF beat THEN
		PERFORM set_config('synchronous_commit', 'off', true);
		PERFORM 1 FROM cairn.session s WHERE s.id = ANY (ids) ORDER BY s.id FOR UPDATE;
		RETURN QUERY UPDATE cairn.session s SET beats = s.beats + 1 WHERE s.id = ANY (ids)
			RETURNING s.id, s.beats;
	ELSE
		RETURN QUERY SELECT s.id, s.beats FROM cairn.session s WHERE s.id = ANY (ids);
	END IF;
END $$;

-- Takes records off, or their bodies: the bytes that are left of each are given.
CREATE FUNCTION cairn.remove(positions bigint[], wholes boolean[], bodies bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM cairn.lock();
	INSERT INTO cairn.withheld AS w (stream_no, removed)
		SELECT r.stream_no, count(*) FROM unnest(positions, wholes) AS u(position, whole)
		JOIN cairn.record r ON r.position = u.position
		WHERE u.whole AND NOT r.removed AND r.content AND NOT EXISTS (SELECT 1 FROM cairn.withheld h
			WHERE h.stream_no = r.stream_no AND r.position < h.below)
		GROUP BY r.stream_no
		ON CONFLICT (stream_no) DO UPDATE SET removed = w.removed + excluded.removed;
	UPDATE cairn.record r SET bytes = u.body, removed = u.whole,
			id = CASE WHEN u.whole THEN '00000000-0000-0000-0000-000000000000' ELSE r.id END
		FROM unnest(positions, wholes, bodies) AS u(position, whole, body)
		WHERE r.position = u.position AND NOT r.removed;
END $$;

-- The newest sequence, the number of records and so on of each stream, in the order asked for, and those of
-- the ids that are there: all as of one head. The settings keep a plan that was made for small tables from
-- being used for large ones.
CREATE FUNCTION cairn.lookup(streams text[], categories text[], ids uuid[],
	OUT head bigint, OUT last_commit bigint,
	OUT stream_nos bigint[], OUT category_nos bigint[], OUT sequences bigint[], OUT numbers bigint[],
	OUT lives bigint[],
	OUT found_ids uuid[], OUT found_positions bigint[], OUT found_sequences bigint[],
	OUT found_times bigint[], OUT found_kinds integer[], OUT found_lasts boolean[],
	OUT found_streams text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET jit = off AS $$
BEGIN
	SELECT r.position + 1, r.commit_time INTO head, last_commit
		FROM cairn.record r ORDER BY r.position DESC LIMIT 1;
	IF head IS NULL THEN
		head := 0;
		last_commit := 0;
	END IF;
	IF cardinality(streams) > 0 THEN
		SELECT array_agg(s.no ORDER BY u.nth), array_agg(c.no ORDER BY u.nth),
				array_agg(q.sequence ORDER BY u.nth), array_agg(n.number ORDER BY u.nth),
				array_agg(n.number - coalesce(w.base + w.removed, 0) ORDER BY u.nth)
			INTO stream_nos, category_nos, sequences, numbers, lives
			FROM unnest(streams, categories) WITH ORDINALITY AS u(name, category, nth)
			LEFT JOIN cairn.stream s ON s.name = u.name
			LEFT JOIN cairn.category c ON c.name = u.category
			LEFT JOIN cairn.withheld w ON w.stream_no = s.no
			LEFT JOIN LATERAL (SELECT r.number FROM cairn.record r WHERE r.stream_no = s.no
				ORDER BY r.position DESC LIMIT 1) n ON true
			LEFT JOIN LATERAL (SELECT r.sequence FROM cairn.record r WHERE r.stream_no = s.no
				AND r.kind IN (1, 3, 5) AND NOT r.removed ORDER BY r.sequence DESC LIMIT 1) q ON true;
	END IF;
	IF cardinality(ids) > 0 THEN
		SELECT array_agg(r.id), array_agg(r.position), array_agg(r.sequence),
				array_agg(r.commit_time), array_agg(r.kind), array_agg(r.last_of_append),
				array_agg(s.name)
			INTO found_ids, found_positions, found_sequences, found_times, found_kinds,
				found_lasts, found_streams
			FROM unnest(ids) AS u(id)
			JOIN cairn.record r ON r.id = u.id AND NOT r.removed
			JOIN cairn.stream s ON s.no = r.stream_no;
	END IF;
END $$;

-- ---- for people with psql ----------------------------------------------------------------------------

-- One varint of a protobuf message at an offset: its value, and where it ends.
CREATE FUNCTION cairn.varint(message bytea, INOUT at integer, OUT value bigint)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	byte integer;
	shift integer := 0;
BEGIN
	value := 0;
	LOOP
		byte := get_byte(message, at);
		value := value | ((byte & 127)::bigint << shift);
		at := at + 1;
		shift := shift + 7;
		EXIT WHEN byte < 128 OR shift > 63;
	END LOOP;
END $$;

-- The fields of a protobuf message: number, and the value as a number or as bytes.
CREATE FUNCTION cairn.fields(message bytea) RETURNS TABLE (field integer, number bigint, bytes bytea)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	at integer := 0;
	tag bigint;
	n bigint;
BEGIN
	WHILE at < length(message) LOOP
		SELECT v.at, v.value INTO at, tag FROM cairn.varint(message, at) v;
		field := (tag >> 3)::integer;
		number := NULL;
		bytes := NULL;
		CASE tag & 7
		WHEN 0 THEN
			SELECT v.at, v.value INTO at, number FROM cairn.varint(message, at) v;
		WHEN 1 THEN
			number := 0;
			FOR i IN REVERSE 7..0 LOOP
				number := (number << 8) | get_byte(message, at + i);
			END LOOP;
			at := at + 8;
		WHEN 2 THEN
			SELECT v.at, v.value INTO at, n FROM cairn.varint(message, at) v;
			bytes := substr(message, at + 1, n::integer);
			at := at + n::integer;
		WHEN 5 THEN
			number := 0;
			FOR i IN REVERSE 3..0 LOOP
				number := (number << 8) | get_byte(message, at + i);
			END LOOP;
			at := at + 4;
		ELSE
			RETURN;
		END CASE;
		RETURN NEXT;
	END LOOP;
END $$;

-- The content as JSON, if that is what it is.
CREATE FUNCTION cairn.json(content_type text, data bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF data IS NULL OR content_type !~* '^(application/(.*\+)?json|text/json)' THEN
		RETURN NULL;
	END IF;
	RETURN convert_from(data, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN
	RETURN NULL;
END $$;

-- One record, taken apart.
CREATE FUNCTION cairn.decode(record bytea, OUT type text, OUT content_type text, OUT actor text,
	OUT data bytea, OUT metadata jsonb, OUT json jsonb)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	entry bytea;
	header bytea;
	body bytea;
BEGIN
	SELECT f.bytes INTO entry FROM cairn.fields(record) f WHERE f.field = 1;
	SELECT f.bytes INTO header FROM cairn.fields(entry) f WHERE f.field = 2;
	SELECT f.bytes INTO body FROM cairn.fields(entry) f WHERE f.field = 3;
	SELECT max(convert_from(f.bytes, 'UTF8')) FILTER (WHERE f.field = 7),
			max(convert_from(f.bytes, 'UTF8')) FILTER (WHERE f.field = 8),
			max(convert_from(f.bytes, 'UTF8')) FILTER (WHERE f.field = 9)
		INTO type, content_type, actor
		FROM cairn.fields(header) f;
	IF body IS NULL THEN
		RETURN;
	END IF;
	SELECT f.bytes INTO data FROM cairn.fields(body) f WHERE f.field = 2;
	data := coalesce(data, ''::bytea);
	SELECT jsonb_object_agg(m.key, m.value) INTO metadata FROM (
		SELECT (SELECT convert_from(k.bytes, 'UTF8') FROM cairn.fields(f.bytes) k WHERE k.field = 1) AS key,
			(SELECT encode(v.bytes, 'escape') FROM cairn.fields(f.bytes) v WHERE v.field = 2) AS value
		FROM cairn.fields(body) f WHERE f.field = 3) m WHERE m.key IS NOT NULL;
	json := cairn.json(content_type, data);
END $$;

CREATE FUNCTION cairn.time(microseconds bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
	$$ SELECT timestamptz 'epoch' + microseconds * interval '1 microsecond' $$;

-- What is not withheld; of erased ones the bytes are not shown.
CREATE VIEW cairn.given AS
	SELECT r.*, EXISTS (SELECT 1 FROM cairn.erasure e WHERE e.stream_no = r.stream_no AND r.content
			AND r.position < e.position AND CASE r.kind WHEN 2 THEN e.snapshots AND r.sequence >= e.first
			WHEN 1 THEN r.sequence BETWEEN e.first AND e.last ELSE e.whole END) AS erased
	FROM cairn.record r
	WHERE NOT r.removed AND NOT (r.content AND EXISTS (SELECT 1 FROM cairn.withheld h
		WHERE h.stream_no = r.stream_no AND r.position < h.below));

CREATE VIEW cairn.events AS
	SELECT r.position, s.name AS stream, r.sequence,
		CASE r.kind WHEN 1 THEN 'event' WHEN 2 THEN 'snapshot' WHEN 3 THEN 'delete' WHEN 4 THEN 'truncate'
			WHEN 5 THEN 'erase' ELSE 'kind ' || r.kind END AS kind,
		d.type, cairn.time(r.commit_time) AS "time", CASE WHEN NOT r.erased THEN d.json END AS json,
		CASE WHEN NOT r.erased THEN d.data END AS data,
		CASE WHEN NOT r.erased THEN d.metadata END AS metadata, d.content_type, d.actor, r.id
	FROM cairn.given r
	JOIN cairn.stream s ON s.no = r.stream_no
	CROSS JOIN LATERAL cairn.decode(r.bytes) d;
COMMENT ON VIEW cairn.events IS 'the records as people read them; json where the content is JSON';

CREATE VIEW cairn.streams AS
	SELECT s.name AS stream, c.name AS category, q.sequence,
		l.number - coalesce(w.base + w.removed, 0) AS records,
		s.no AS first_position, l.position AS last_position, cairn.time(l.commit_time) AS last_time
	FROM cairn.stream s
	JOIN cairn.category c ON c.no = s.category_no
	LEFT JOIN cairn.withheld w ON w.stream_no = s.no
	CROSS JOIN LATERAL (SELECT r.number, r.position, r.commit_time FROM cairn.record r
		WHERE r.stream_no = s.no ORDER BY r.position DESC LIMIT 1) l
	LEFT JOIN LATERAL (SELECT r.sequence FROM cairn.record r
		WHERE r.stream_no = s.no AND r.kind IN (1, 3, 5) AND NOT r.removed ORDER BY r.sequence DESC LIMIT 1) q ON true;
COMMENT ON VIEW cairn.streams IS 'every stream, and how far it goes';

CREATE VIEW cairn.categories AS
	SELECT c.name AS category, count(s.no) AS streams
	FROM cairn.category c JOIN cairn.stream s ON s.category_no = c.no GROUP BY c.name;
COMMENT ON VIEW cairn.categories IS 'every category, and how many streams it has';

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA cairn FROM PUBLIC;
