-- Steps per patient: GROUP BY the patient, then an aggregate across patients.
-- draws 3
SELECT least(t.n, 10) AS k, count(*) AS m FROM (SELECT e.{pid}, count(*) AS n FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t GROUP BY 1;

SELECT count(*) AS n, avg(least(t.n, 50)) AS a, sum(least(t.f, 50)) AS s FROM (SELECT e.{pid}, count(*) AS n, count(*) FILTER (WHERE {e.filter}) AS f FROM {e} e GROUP BY e.{pid}) t;

SELECT count(*) AS n, avg(t.most) AS a, avg(t.least) AS b, sum(t.most - t.least) AS s FROM (SELECT e.{pid}, max({e.number#1}) AS most, min({e.number#1}) AS least FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t;

SELECT CASE WHEN t.n > 20 THEN 'many' WHEN t.n > 3 THEN 'some' ELSE 'few' END AS k, count(*) AS m, avg(t.most) AS a FROM (SELECT e.{pid}, count(*) AS n, max({e.number}) AS most FROM {e} e GROUP BY e.{pid}) t GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, avg(least(t.n, 30)) AS a FROM {p} p JOIN (SELECT e.{pid}, count(*) AS n FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t ON t.{pid} = p.{pid} GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, count(t.n) AS w, sum(coalesce(least(t.n, 30), 0)) AS s FROM {p} p LEFT JOIN (SELECT e.{pid}, count(*) AS n FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t ON t.{pid} = p.{pid} GROUP BY 1;

SELECT count(*) AS n FROM (SELECT e.{pid}, avg({e.number}) AS a, sum({e.number}) AS s FROM {e} e GROUP BY e.{pid}) t WHERE t.a > 2 AND t.s > 10;

SELECT t.k, count(*) AS n, avg(least(t.n, 40)) AS a FROM (SELECT e.{pid}, {e.key#k} AS k, count(*) AS n FROM {e} e GROUP BY e.{pid}, {e.key#k}) t GROUP BY t.k;

SELECT date_part('quarter', t.first) AS k, count(*) AS n FROM (SELECT e.{pid}, min({e.date}) AS first FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) t GROUP BY 1;

SELECT CASE WHEN t.last - t.first > 365 THEN 'years' WHEN t.last - t.first > 30 THEN 'months' ELSE 'days' END AS k, count(*) AS n FROM (SELECT e.{pid}, min({e.date#1}) AS first, max({e.date#1}) AS last FROM {e} e GROUP BY e.{pid}) t GROUP BY 1;

SELECT CASE WHEN b.d - a.d > 90 THEN 'late' WHEN b.d - a.d >= 0 THEN 'after' ELSE 'before' END AS k, count(*) AS n FROM (SELECT e.{pid}, min({e.date}) AS d FROM {e} e WHERE {e.filter} GROUP BY e.{pid}) a JOIN (SELECT o.{pid}, min({o.date}) AS d FROM {o} o WHERE {o.filter} GROUP BY o.{pid}) b ON a.{pid} = b.{pid} GROUP BY 1;

SELECT t.most > 3 AS k, count(*) AS n FROM (SELECT s.{pid}, max(s.n) AS most FROM (SELECT e.{pid}, {e.key#k} AS k, count(*) AS n FROM {e} e GROUP BY e.{pid}, {e.key#k}) s GROUP BY s.{pid}) t GROUP BY 1;

SELECT count(*) AS n, count(t.k) AS v FROM (SELECT e.{pid}, min({e.number}) FILTER (WHERE {e.filter}) AS k FROM {e} e GROUP BY e.{pid}) t;

WITH firsts AS (SELECT e.{pid}, min({e.number}) AS v, count(*) AS n FROM {e} e WHERE {e.filter} GROUP BY e.{pid}), wide AS (SELECT p.{pid}, {p.key} AS k, f.v, f.n FROM {p} p JOIN firsts f ON f.{pid} = p.{pid}) SELECT k, count(*) AS m, avg(v) AS a, count(*) FILTER (WHERE n > 2) AS c FROM wide GROUP BY k;

SELECT {p.key} AS k, count(*) AS n FROM {p} p JOIN (SELECT e.{pid} FROM {e} e WHERE {e.filter} GROUP BY e.{pid} HAVING count(*) > 2) t ON t.{pid} = p.{pid} GROUP BY 1;
