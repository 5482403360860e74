"""Every trial of a study beforehand, and what it will take."""
