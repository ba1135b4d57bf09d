-- More steps per patient: outer joins that keep patients, more functions, dates.
-- draws 3
SELECT {p.key} AS k, count(*) AS n FROM {p} p RIGHT JOIN (SELECT DISTINCT e.{pid} FROM {e} e WHERE {e.filter}) t ON t.{pid} = p.{pid} GROUP BY 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, count(DISTINCT {e.key}) AS d FROM {e} e GROUP BY e.{pid}) t WHERE t.d > 1;

SELECT count(*) AS n, sum(CASE WHEN t.y THEN 1 ELSE 0 END) AS s FROM (SELECT e.{pid}, bool_or({e.filter}) AS y FROM {e} e GROUP BY e.{pid}) t;

SELECT count(*) AS n FROM {e} e JOIN {o} o ON o.{pid} = e.{pid} AND {o.date} BETWEEN {e.date#1} - INTERVAL '30 days' AND {e.date#1};

SELECT count(*) AS n FROM {p} p WHERE EXISTS (SELECT 1 FROM {e} e JOIN {o} o ON o.{pid} = e.{pid} WHERE e.{pid} = p.{pid} AND {e.filter} AND {o.filter});

SELECT date_part('year', date_trunc('month', {e.date})) - 2000 > 0 AS k, count(*) AS n FROM {e} e GROUP BY 1;

SELECT count(*) AS n FROM {e} e WHERE trim(concat({e.code}, 'x')) LIKE 'E%' OR position('1' IN {e.code}) > 1 OR replace({e.code}, '.', '') = 'I10';

SELECT count(*) AS n, sum(abs({e.number})) AS s FROM {e} e WHERE {e.filter};

SELECT least(t.r, 4) AS k, count(*) AS n FROM (SELECT e.{pid}, rank() OVER (PARTITION BY e.{pid} ORDER BY {e.number}) AS r FROM {e} e) t GROUP BY 1;
