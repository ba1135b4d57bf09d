-- Awaiting a wider relation language: set operations, correlated counts, ntile, nth_value, nullif with a range, moments per patient.
-- draws 3
SELECT count(*) AS n FROM (SELECT e.{pid}, stddev_samp({e.number}) AS s FROM {e} e GROUP BY e.{pid}) t WHERE t.s > 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, median({e.number}) AS m FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t WHERE t.m > 2;

SELECT {e.key} AS k, count(*) AS n FROM {e} e WHERE (SELECT count(*) FROM {o} o WHERE o.{pid} = e.{pid} AND {o.filter}) > 2 GROUP BY 1;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} INTERSECT SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} EXCEPT SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} UNION SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT t.k, count(*) AS n FROM (SELECT {e.key} AS k, ntile(4) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS q FROM {e} e) t WHERE t.q = 4 GROUP BY t.k;

SELECT count(*) AS n FROM (SELECT e.{pid}, nth_value({e.number}, 2) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS v FROM {e} e) t WHERE t.v > 1;

SELECT count(*) AS n, sum({e.bounded} * 2) AS s, avg(nullif({e.bounded}, 0)) AS a FROM {e} e WHERE {e.filter};

SELECT {p.key} AS k, count(*) AS n FROM {p} p WHERE {p.filter} OR p.{pid} IN (SELECT e.{pid} FROM {e} e WHERE {e.filter}) GROUP BY 1;

SELECT count(*) AS n, sum({e.bounded} * 2) AS s FROM {e} e WHERE {e.filter};
