-- Awaiting the wider relation language: more functions per patient, QUALIFY-like filters, date arithmetic, value lists, set operations.
-- draws 4
SELECT {p.key} AS k, count(*) AS n FROM {p} p RIGHT JOIN (SELECT DISTINCT e.{pid} FROM {e} e WHERE {e.filter}) t ON t.{pid} = p.{pid} GROUP BY 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, stddev_samp({e.number}) AS s FROM {e} e GROUP BY e.{pid}) t WHERE t.s > 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, count(DISTINCT {e.key}) AS d FROM {e} e GROUP BY e.{pid}) t WHERE t.d > 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, median({e.number}) AS m FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t WHERE t.m > 2;

SELECT count(*) AS n, sum(CASE WHEN t.y THEN 1 ELSE 0 END) AS s FROM (SELECT e.{pid}, bool_or({e.filter}) AS y FROM {e} e GROUP BY e.{pid}) t;

SELECT count(*) AS n FROM {e} e JOIN {o} o ON o.{pid} = e.{pid} AND {o.date} BETWEEN {e.date#1} - INTERVAL '30 days' AND {e.date#1};

SELECT count(*) AS n FROM {p} p WHERE EXISTS (SELECT 1 FROM {e} e JOIN {o} o ON o.{pid} = e.{pid} WHERE e.{pid} = p.{pid} AND {e.filter} AND {o.filter});

SELECT {e.key} AS k, count(*) AS n FROM {e} e WHERE (SELECT count(*) FROM {o} o WHERE o.{pid} = e.{pid} AND {o.filter}) > 2 GROUP BY 1;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} INTERSECT SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} EXCEPT SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT count(*) AS n FROM (SELECT e.{pid} FROM {e} e WHERE {e.filter} UNION SELECT o.{pid} FROM {o} o WHERE {o.filter}) t;

SELECT t.k, count(*) AS n FROM (SELECT {e.key} AS k, ntile(4) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS q FROM {e} e) t WHERE t.q = 4 GROUP BY t.k;

SELECT count(*) AS n FROM (SELECT e.{pid}, nth_value({e.number}, 2) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS v FROM {e} e) t WHERE t.v > 1;

SELECT date_part('year', date_trunc('month', {e.date})) - 2000 > 0 AS k, count(*) AS n FROM {e} e GROUP BY 1;

SELECT count(*) AS n FROM {e} e WHERE trim(concat({e.code}, 'x')) LIKE 'E%' OR position('1' IN {e.code}) > 1 OR replace({e.code}, '.', '') = 'I10';

SELECT count(*) AS n, sum(abs({e.number}) + sign({e.number})) AS s FROM {e} e WHERE {e.filter};

SELECT least(t.r, 4) AS k, count(*) AS n FROM (SELECT e.{pid}, rank() OVER (PARTITION BY e.{pid} ORDER BY {e.number}) AS r FROM {e} e) t GROUP BY 1;

SELECT count(*) AS n, sum({e.bounded} * 2) AS s, avg(nullif({e.bounded}, 0)) AS a FROM {e} e WHERE {e.filter};

SELECT {p.key} AS k, count(*) AS n FROM {p} p WHERE {p.filter} OR p.{pid} IN (SELECT e.{pid} FROM {e} e WHERE {e.filter}) GROUP BY 1;
