-- Tiles of the Merkle tree over the log: 256 hashes each. They are made from the log, and can be made again.

CREATE TABLE cairn.tile (
	level bigint NOT NULL,
	number bigint NOT NULL,
	hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
	PRIMARY KEY (level, number)
);
COMMENT ON TABLE cairn.tile IS 'the Merkle tree over the log: level 0 has the leaf hashes of records 256 * number and on';
ALTER TABLE cairn.tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- Several may put the same one: it has the same hashes.
CREATE FUNCTION cairn.put_tile(level bigint, number bigint, hashes bytea) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO cairn.tile AS t (level, number, hashes) VALUES ($1, $2, $3)
		ON CONFLICT (level, number) DO UPDATE SET hashes = excluded.hashes
		WHERE t.hashes <> excluded.hashes;
$$;
REVOKE EXECUTE ON FUNCTION cairn.put_tile FROM PUBLIC;

-- Who may run cairnd on this journal already may still.
DO $$
DECLARE
	who text;
BEGIN
	FOR who IN SELECT DISTINCT a.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) a
			WHERE p.pronamespace = 'cairn'::regnamespace AND p.proname = 'append'
			AND a.privilege_type = 'EXECUTE' AND a.grantee NOT IN (0, p.proowner)
	LOOP
		EXECUTE format('GRANT SELECT ON cairn.tile TO %s', who);
		EXECUTE format('GRANT EXECUTE ON FUNCTION cairn.put_tile TO %s', who);
	END LOOP;
END $$;

UPDATE cairn.meta SET schema = 2;
