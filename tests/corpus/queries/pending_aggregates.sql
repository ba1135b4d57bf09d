-- Awaiting joins of released tables whose equality the planner leaves in the join's filter.
-- draws 3
SELECT a.k, a.n, b.m FROM (SELECT {p.key#a} AS k, count(*) AS n FROM {p} p GROUP BY 1) a JOIN (SELECT {p.key#a} AS k, count(*) AS m FROM {p} p WHERE {p.filter} GROUP BY 1) b ON a.k = b.k;
