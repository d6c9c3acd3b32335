"""`csrm pairs`: alignment data from several scored responses per prompt."""
