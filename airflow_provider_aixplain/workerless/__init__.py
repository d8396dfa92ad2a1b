"""Start and end tasks in the triggerer, without a worker."""
