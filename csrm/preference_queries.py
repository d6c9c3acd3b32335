"""The tables of `csrm.preference_data`, and the SQL (DuckDB) that ranks responses and picks from them.

responses   id, prompt_id, record_id, p_safe, helpfulness, and shard, record, part: where the text is
ranked      responses and score, complies, rank within the prompt, num_responses of the prompt
picks       prompt_id, nth, num_responses, chosen, rejected (ids), margin, dropped (why it is not written, else null)
wanted      id, shard, record, part of the responses picked
texts       id, start and size in the file, digests of prompt and reply (null: no reply of an assistant) of the same
"""

__all__ = ["BEST", "PAIRS", "QUALITY", "RANKED", "READ", "ROWS", "TABLES", "WANTED"]

TABLES = """
CREATE OR REPLACE TABLE responses (id BIGINT, prompt_id VARCHAR, record_id VARCHAR, p_safe REAL, helpfulness DOUBLE,
    shard INTEGER, record BIGINT, part INTEGER);
CREATE OR REPLACE TABLE texts (id BIGINT, start BIGINT, size BIGINT, prompt BLOB, reply BLOB);
"""

RANKED = """
CREATE OR REPLACE TABLE ranked AS
SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY score DESC, record_id, id) AS rank,
    count(*) OVER (PARTITION BY prompt_id) AS num_responses
FROM (SELECT *, p_safe * helpfulness AS score, p_safe >= $threshold::REAL AS complies FROM responses)
"""

ELIGIBLE = """
SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY rank) AS nth
FROM ranked WHERE num_responses > 1 AND (complies OR $allow_violations)
"""

# Ranks of the chosen go up and those of the rejected come down, so no response is on both sides.
PAIRS = f"""
CREATE OR REPLACE TABLE picks AS
SELECT c.prompt_id, c.nth, c.num_responses, c.id AS chosen, r.id AS rejected, c.score - r.score AS margin,
    CASE WHEN c.score - r.score <= 0 OR c.score - r.score < $min_margin THEN 'near_ties' END AS dropped
FROM ({ELIGIBLE}) c JOIN ranked r
ON r.prompt_id = c.prompt_id AND r.rank = c.num_responses + 1 - c.nth AND c.rank < r.rank
WHERE c.nth <= $top_k
"""

BEST = f"""
CREATE OR REPLACE TABLE picks AS
SELECT prompt_id, nth, num_responses, id AS chosen, NULL::BIGINT AS rejected, NULL::DOUBLE AS margin,
    NULL::VARCHAR AS dropped
FROM ({ELIGIBLE}) WHERE nth <= $top_k
"""

WANTED = """
CREATE OR REPLACE TABLE wanted AS SELECT id, shard, record, part FROM responses
WHERE id IN (SELECT unnest([chosen, rejected]) FROM picks WHERE dropped IS NULL) ORDER BY id
"""

READ = """
UPDATE picks SET dropped = found.dropped FROM (
    SELECT p.chosen, CASE WHEN c.reply IS NULL OR (p.rejected IS NOT NULL AND r.reply IS NULL) THEN 'no_reply'
        WHEN r.prompt <> c.prompt THEN 'other_prompt' WHEN r.reply = c.reply THEN 'same_text' END AS dropped
    FROM picks p LEFT JOIN texts c ON c.id = p.chosen LEFT JOIN texts r ON r.id = p.rejected WHERE p.dropped IS NULL
) found WHERE found.chosen = picks.chosen AND picks.dropped IS NULL
"""

ROWS = """
SELECT p.prompt_id, p.num_responses, p.margin, ct.start AS chosen_start, ct.size AS chosen_size,
    rt.start AS rejected_start, rt.size AS rejected_size,
    c.record_id AS chosen_id, c.score AS chosen_score, c.p_safe AS chosen_p_safe, c.helpfulness AS chosen_helpfulness,
    r.record_id AS rejected_id, r.score AS rejected_score, r.p_safe AS rejected_p_safe,
    r.helpfulness AS rejected_helpfulness
FROM picks p JOIN texts ct ON ct.id = p.chosen JOIN ranked c ON c.id = p.chosen
LEFT JOIN texts rt ON rt.id = p.rejected LEFT JOIN ranked r ON r.id = p.rejected
WHERE p.dropped IS NULL ORDER BY p.prompt_id, p.nth
"""

QUALITY = """
SELECT count(*), avg(complies::INTEGER), avg(p_safe), avg(helpfulness), avg(if(complies, helpfulness, -helpfulness))
FROM ranked
"""
