"""``medaug doctor``: one check per known trap, each with what was found and how to mend it."""
