"""What leaves the house: a generator, or synthetic rows, with a card that says what it is worth.

A generator that remembers single training patients gives them away to whoever draws enough rows,
and so do its rows. So one whose rows are near-copies of training rows more often than unseen
patients' real rows are does not leave without its owner's word for it, and the card says so.
"""

from medaug.export.samples import export_samples
from medaug.export.weights import export

__all__ = ["export", "export_samples"]
