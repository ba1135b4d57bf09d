-- Awaiting percentile_cont, which is refused as it is written here.
-- draws 2
SELECT count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY {e.bounded#1}) AS m FROM {e} e WHERE {e.filter} AND {e.bounded#1} IS NOT NULL;

SELECT {p.key} AS k, count(*) AS n, percentile_cont(0.25) WITHIN GROUP (ORDER BY {p.bounded#1}) AS q FROM {p} p GROUP BY 1;
