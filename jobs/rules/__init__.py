"""`csrm rules`: rate responses on safety rules, choose the rules that matter for pairs, and learn to choose them."""
