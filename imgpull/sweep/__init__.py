"""A sweep: the matrix, the order of its trials, the ledger, and the step at its end."""
