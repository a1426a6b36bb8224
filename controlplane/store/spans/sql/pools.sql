-- Teams that stand for several (attribution.share); every team that a call can have is a context's.
SELECT DISTINCT team
FROM span_context
WHERE starts_with(team, 'shared:')
