"""`csrm filter`: the original records whose cells satisfy a condition."""
