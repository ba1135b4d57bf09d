-- Windows over one patient's rows, with orders that leave no ties.
-- draws 3
SELECT count(*) AS n, sum(t.v) AS s FROM (SELECT e.{pid}, {e.number} AS v, row_number() OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS r FROM {e} e) t WHERE t.r = 1;

SELECT t.k, count(*) AS n, avg(t.v) AS a FROM (SELECT e.{pid}, {e.key} AS k, {e.number} AS v, row_number() OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS r FROM {e} e WHERE {e.filter}) t WHERE t.r <= 2 GROUP BY t.k;

SELECT count(*) AS n, count(t.b) AS c FROM (SELECT {e.number#1} AS v, lag({e.number#1}) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS b FROM {e} e) t WHERE t.v > t.b;

SELECT count(*) AS n FROM (SELECT {e.number#1} AS v, lead({e.number#1}, 2) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS b FROM {e} e WHERE {e.filter}) t WHERE t.v <= t.b;

SELECT count(*) AS n, sum(t.f) AS s FROM (SELECT {e.number#1} AS v, first_value({e.number#1}) OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS f FROM {e} e WHERE {e.filter}) t;

SELECT least(t.c, 5) AS k, count(*) AS n FROM (SELECT e.{pid}, count(*) OVER (PARTITION BY e.{pid} ORDER BY {e.order} ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS c FROM {e} e WHERE {e.filter}) t GROUP BY 1;

SELECT t.k, count(*) AS n FROM (SELECT {e.key} AS k, count(*) OVER (PARTITION BY e.{pid}) AS c FROM {e} e) t WHERE t.c > 3 GROUP BY t.k;

SELECT count(*) AS n, avg(t.m) AS a FROM (SELECT max({e.number}) OVER (PARTITION BY e.{pid} ORDER BY {e.order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS m FROM {e} e) t;

SELECT CASE WHEN t.gap > 60 THEN 'late' WHEN t.gap > 7 THEN 'weeks' WHEN t.gap >= 0 THEN 'soon' ELSE 'first' END AS k, count(*) AS n FROM (SELECT {e.date#1} - lag({e.date#1}) OVER (PARTITION BY e.{pid} ORDER BY {e.date#1}, {e.order}) AS gap FROM {e} e WHERE {e.filter}) t GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, avg(t.v) AS a FROM {p} p JOIN (SELECT e.{pid}, {e.number} AS v, row_number() OVER (PARTITION BY e.{pid} ORDER BY {e.order}) AS r FROM {e} e WHERE {e.filter}) t ON t.{pid} = p.{pid} WHERE t.r = 1 GROUP BY 1;

SELECT CASE WHEN t.r = 1 THEN 'first' WHEN t.r <= 3 THEN 'early' ELSE 'later' END AS k, count(*) AS n FROM (SELECT e.{pid}, rank() OVER (PARTITION BY e.{pid} ORDER BY {e.number}) AS r FROM {e} e WHERE {e.filter}) t GROUP BY 1;

SELECT CASE t.r WHEN 1 THEN 'first' WHEN 2 THEN 'second' ELSE 'later' END AS k, count(*) AS n FROM (SELECT e.{pid}, dense_rank() OVER (PARTITION BY e.{pid}, {e.key} ORDER BY {e.number}) AS r FROM {e} e WHERE {e.filter}) t GROUP BY 1;
