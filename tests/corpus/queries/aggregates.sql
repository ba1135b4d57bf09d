-- One table: aggregates, filters, group keys, FILTER clauses.
-- draws 4
SELECT count(*) AS n, {e.agg}, {e.agg2} FROM {e} e WHERE {e.filter};

SELECT {e.key} AS k, count(*) AS n, {e.agg}, {e.agg2} FROM {e} e GROUP BY 1;

SELECT {e.key} AS k, count(*) AS n, {e.agg} FROM {e} e WHERE {e.filter} GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, {p.agg}, {p.agg2} FROM {p} p WHERE {p.filter} GROUP BY 1;

-- draws 3
SELECT {e.key} AS k1, {e.key} AS k2, count(*) AS n, {e.agg} FROM {e} e WHERE NOT ({e.filter}) GROUP BY 1, 2;

SELECT {p.key} AS k1, {p.key} AS k2, count(*) AS n, {p.agg} FROM {p} p GROUP BY 1, 2;

SELECT {p.key} AS k, count(*) AS n, count(*) FILTER (WHERE {p.filter}) AS f, count(*) FILTER (WHERE {p.filter}) AS g, avg({p.number}) FILTER (WHERE {p.filter}) AS a FROM {p} p GROUP BY 1;

SELECT count(DISTINCT e.{pid}) AS p, count(DISTINCT e.{pid}) FILTER (WHERE {e.filter}) AS q FROM {e} e WHERE {e.filter} OR {e.filter};

SELECT CASE WHEN {e.filter} THEN 'a' WHEN {e.filter} THEN 'b' ELSE 'c' END AS k, count(*) AS n, sum({e.number}) AS s FROM {e} e GROUP BY 1;

SELECT {e.key} AS k, count(*) AS n, sum(CASE WHEN {e.filter} THEN {e.number} ELSE 0 END) AS s FROM {e} e WHERE {e.filter} AND NOT {e.filter} GROUP BY 1;
