"""Commands and their Ray pipelines. Knows Ray and click; nothing in `csrm` imports it."""
