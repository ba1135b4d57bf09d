-- Quantiles and extremes, from histograms.
-- draws 2
SELECT count(*) AS n, min({e.bounded#1}) AS a, max({e.bounded#1}) AS b FROM {e} e WHERE {e.filter};

SELECT {p.key} AS k, count(*) AS n, min({p.bounded#1}) AS a, max({p.bounded#1}) AS b FROM {p} p GROUP BY 1;

SELECT count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY {e.bounded#1}) AS m FROM {e} e WHERE {e.filter} AND {e.bounded#1} IS NOT NULL;

SELECT {p.key} AS k, count(*) AS n, percentile_cont(0.25) WITHIN GROUP (ORDER BY {p.bounded#1}) AS q FROM {p} p GROUP BY 1;
