-- Cohorts: joins on the patient, IN, EXISTS, CTEs, UNION ALL, DISTINCT, public tables.
-- draws 3
SELECT {p.key} AS k, count(*) AS n, {e.agg}, {p.agg2} FROM {p} p JOIN {e} e ON e.{pid} = p.{pid} WHERE {e.filter} GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, {e.agg} FROM {e} e JOIN {p} p ON e.{pid} = p.{pid} AND {p.filter} WHERE {e.filter} GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, count({e.number}) AS v, sum({e.number}) AS s FROM {p} p LEFT JOIN {e} e ON e.{pid} = p.{pid} AND {e.filter} GROUP BY 1;

SELECT count(*) AS n, {p.agg} FROM {p} p LEFT JOIN {e} e ON e.{pid} = p.{pid} AND {e.filter} WHERE e.{pid} IS NULL;

SELECT {p.key} AS k, count(*) AS n, {p.agg} FROM {p} p WHERE p.{pid} IN (SELECT e.{pid} FROM {e} e WHERE {e.filter}) GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, {p.agg} FROM {p} p WHERE p.{pid} NOT IN (SELECT e.{pid} FROM {e} e WHERE {e.filter}) AND {p.filter} GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n FROM {p} p WHERE EXISTS (SELECT 1 FROM {e} e WHERE e.{pid} = p.{pid} AND {e.filter}) AND EXISTS (SELECT 1 FROM {o} o WHERE o.{pid} = p.{pid} AND {o.filter}) GROUP BY 1;

SELECT {e.key} AS k, count(*) AS n, {e.agg} FROM {e} e WHERE NOT EXISTS (SELECT 1 FROM {o} o WHERE o.{pid} = e.{pid} AND {o.filter}) GROUP BY 1;

SELECT {e.key} AS k, count(*) AS n, count(DISTINCT e.{pid}) AS d FROM {e} e WHERE e.{pid} IN (SELECT p.{pid} FROM {p} p WHERE {p.filter}) AND e.{pid} NOT IN (SELECT o.{pid} FROM {o} o WHERE {o.filter}) GROUP BY 1;

WITH cohort AS (SELECT p.{pid} FROM {p} p WHERE {p.filter}), found AS (SELECT e.{pid}, {e.key} AS k, {e.number} AS v FROM {e} e JOIN cohort c ON c.{pid} = e.{pid} WHERE {e.filter}) SELECT k, count(*) AS n, avg(v) AS a, sum(v) AS s FROM found GROUP BY k;

WITH a AS (SELECT e.{pid} FROM {e} e WHERE {e.filter}), b AS (SELECT o.{pid} FROM {o} o WHERE {o.filter}), both_of AS (SELECT DISTINCT a.{pid} FROM a JOIN b ON a.{pid} = b.{pid}) SELECT {p.key} AS k, count(*) AS n FROM {p} p JOIN both_of w ON w.{pid} = p.{pid} GROUP BY 1;

SELECT count(*) AS n, count(DISTINCT t.{pid}) AS d FROM (SELECT e.{pid}, {e.number} AS v FROM {e} e WHERE {e.filter} UNION ALL SELECT o.{pid}, {o.number} AS v FROM {o} o WHERE {o.filter}) t WHERE t.v IS NOT NULL;

SELECT t.k, count(*) AS n, count(DISTINCT t.{pid}) AS d FROM (SELECT e.{pid}, CASE WHEN {e.filter} THEN 'yes' ELSE 'no' END AS k FROM {e} e UNION ALL SELECT p.{pid}, CASE WHEN {p.filter} THEN 'yes' ELSE 'none' END AS k FROM {p} p) t GROUP BY t.k;

SELECT t.k, count(*) AS n FROM (SELECT DISTINCT e.{pid}, {e.key} AS k FROM {e} e WHERE {e.filter}) t GROUP BY t.k;

SELECT {p.key} AS k, count(*) AS n, {p.agg} FROM {p} p JOIN (SELECT DISTINCT e.{pid} FROM {e} e WHERE {e.filter}) t ON t.{pid} = p.{pid} GROUP BY 1;

SELECT {c.label} AS k, count(*) AS n, {e.agg} FROM {e} e {e.join} WHERE {e.filter} GROUP BY 1;

SELECT {p.key} AS k1, {c.label} AS k2, count(*) AS n, count(DISTINCT e.{pid}) AS d FROM {e} e {e.join} JOIN {p} p ON p.{pid} = e.{pid} GROUP BY 1, 2;

SELECT v.name AS k, count(*) AS n, {e.agg} FROM {e} e JOIN (VALUES (1, 'one'), (2, 'two'), (3, 'three')) AS v(x, name) ON v.x = {e.whole} GROUP BY 1;

SELECT t.k, count(*) AS n, avg(t.v) AS a FROM (SELECT s.{pid}, s.k, s.v FROM (SELECT e.{pid}, {e.key} AS k, {e.number} AS v FROM {e} e WHERE {e.filter}) s WHERE s.v IS NOT NULL) t GROUP BY t.k;

SELECT count(DISTINCT e.{pid}) AS d FROM {e} e JOIN {o} o ON o.{pid} = e.{pid} AND {e.filter} WHERE {o.filter};
