"""One trial on its group of ranks."""
