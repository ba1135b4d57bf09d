-- What follows the release: HAVING, ORDER BY, LIMIT on released cells.
-- draws 2
SELECT {e.key} AS k, count(*) AS n, {e.agg} FROM {e} e GROUP BY 1 HAVING count(*) > 20;

SELECT {p.key} AS k, count(*) AS n, {p.agg} FROM {p} p GROUP BY 1 HAVING count(*) > 3 ORDER BY n DESC;

SELECT {e.key} AS k, count(*) AS n FROM {e} e WHERE {e.filter} GROUP BY 1 ORDER BY n DESC, k LIMIT 2;

SELECT {p.key} AS k, count(*) AS n, {e.agg} FROM {p} p JOIN {e} e ON e.{pid} = p.{pid} GROUP BY 1 HAVING count(*) > 5 AND count(*) < 100000 ORDER BY k;

-- Both sides have the same groups: of ours every declared cell is there, and plain SQL joins those that have rows.
-- draws 3
SELECT a.k, a.n, b.m FROM (SELECT {p.key#a} AS k, count(*) AS n FROM {p} p GROUP BY 1) a JOIN (SELECT {p.key#a} AS k, count({p.bounded#1}) AS m FROM {p} p GROUP BY 1) b ON a.k = b.k;
