"""The Ray cluster: started, joined, submitted to, drained."""
