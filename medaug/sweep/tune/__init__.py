"""Ray Tune, asked to run a wave."""
