SELECT date_trunc('hour', time) AS time, source, base, avg(price) AS mean, count(*) AS samples
FROM raw WHERE time >= $1 AND time < $2 GROUP BY 1, 2, 3
