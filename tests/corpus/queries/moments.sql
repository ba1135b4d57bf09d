-- Variances, correlations, arithmetic on aggregates, grouping sets.
-- draws 3
SELECT count(*) AS n, var_samp({e.number#1}) AS v, stddev_samp({e.number#1}) AS s FROM {e} e WHERE {e.filter};

SELECT {e.key} AS k, count(*) AS n, var_pop({e.number#1}) AS v, stddev_pop({e.number#1}) AS s FROM {e} e GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, stddev({p.number}) AS s, var_samp({p.number}) AS v FROM {p} p GROUP BY 1 HAVING count(*) > 2;

SELECT count(*) AS n, covar_samp({e.number}, {e.number}) AS c, covar_pop({e.number}, {e.number}) AS d FROM {e} e WHERE {e.filter};

SELECT count(*) AS n, corr({e.number}, {p.number}) AS c FROM {p} p JOIN {e} e ON e.{pid} = p.{pid};

SELECT {e.key} AS k, count(*) AS n, 100.0 * count(*) FILTER (WHERE {e.filter}) / count(*) AS share FROM {e} e GROUP BY 1 HAVING count(*) > 0;

SELECT {p.key} AS k, count(*) AS n, sum(coalesce({p.number}, 0)) - count(*) AS d, 2 * count(*) + 1 AS t FROM {p} p GROUP BY 1;

SELECT {p.key#a} AS k1, {p.key#b} AS k2, count(*) AS n FROM {p} p GROUP BY ROLLUP ({p.key#a}, {p.key#b});

SELECT {e.key#a} AS k1, {e.key#b} AS k2, count(*) AS n, {e.agg} FROM {e} e GROUP BY CUBE ({e.key#a}, {e.key#b});

SELECT {p.key#a} AS k1, {p.key#b} AS k2, count(*) AS n, {p.agg} FROM {p} p GROUP BY GROUPING SETS (({p.key#a}, {p.key#b}), ({p.key#a}), ());

SELECT {p.key#a} AS k1, {p.key#b} AS k2, count(*) AS n, count(DISTINCT p.{pid}) AS d FROM {p} p GROUP BY ROLLUP ({p.key#a}, {p.key#b});
