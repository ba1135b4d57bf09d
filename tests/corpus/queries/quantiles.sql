-- Medians of short ranges, where each value has a leaf of its own; with a digit more, so that no engine cuts the mean of the two
-- in the middle. Minima and maxima are told from noise by how much there may be, so they are not equal to plain ones:
-- tests/sql has them.
-- draws 3
SELECT count(*) AS n, median({e.short}) AS m FROM {e} e WHERE {e.filter};

SELECT {p.key} AS k, count(*) AS n, median({p.short}) AS m FROM {p} p GROUP BY 1;

SELECT {p.key} AS k, count(*) AS n, median({e.short}) AS m FROM {p} p JOIN {e} e ON e.{pid} = p.{pid} GROUP BY 1;

SELECT count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY {e.short#1}) AS m FROM {e} e WHERE {e.filter} AND {e.short#1} IS NOT NULL;

SELECT {p.key} AS k, count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY {p.short#1}) AS q FROM {p} p GROUP BY 1;
