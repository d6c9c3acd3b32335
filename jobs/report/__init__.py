"""`csrm report`: a compliance matrix in numbers, for people in a terminal and a browser, and for nightly jobs."""
