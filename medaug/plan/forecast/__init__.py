"""What a study will take, before it runs: counted from its data, rehearsed on its cluster.

    headers -> rows ┐
    plan -> trials  ┴> rehearsal in miniature -> seconds and bytes per trial -> the whole study

The rehearsal is the study itself, made small: the real networks at the real shapes, in the real
waves on the real cluster, for a few epochs on stand-in slices.
"""
