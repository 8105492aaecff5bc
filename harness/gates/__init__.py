"""Judge runs and predictions against budgets."""
