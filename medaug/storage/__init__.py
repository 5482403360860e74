"""Where studies are kept, and how what is kept stays whole."""
