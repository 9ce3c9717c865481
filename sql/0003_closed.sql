-- Journals that nobody opens: one that is being restored here until it is whole, and one that has lost acknowledged
-- history until somebody has accepted that.

ALTER TABLE cairn.meta ADD COLUMN restoring boolean NOT NULL DEFAULT false, ADD COLUMN lost_from bigint;
COMMENT ON COLUMN cairn.meta.restoring IS 'a backup is being restored, or a restore has not come to its end';
COMMENT ON COLUMN cairn.meta.lost_from IS
	'acknowledged records are missing here: from this position on others may stand in their place';

-- Says so for every cairnd, also after a restart. Of several that find it the least counts.
CREATE FUNCTION cairn.lose(lost_from bigint) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	UPDATE cairn.meta AS m SET lost_from = least(coalesce(m.lost_from, $1), $1);
$$;
REVOKE EXECUTE ON FUNCTION cairn.lose FROM PUBLIC;

-- Who may run cairnd on this journal already may still.
DO $$
DECLARE
	who text;
BEGIN
	FOR who IN SELECT DISTINCT a.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) a
			WHERE p.pronamespace = 'cairn'::regnamespace AND p.proname = 'append'
			AND a.privilege_type = 'EXECUTE' AND a.grantee NOT IN (0, p.proowner)
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION cairn.lose TO %s', who);
	END LOOP;
END $$;

UPDATE cairn.meta SET schema = 3;
