"""What is looked at before and beside training: whether the data can carry an honest answer."""
